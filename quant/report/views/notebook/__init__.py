"""How reports and sweeps show themselves in a notebook."""
