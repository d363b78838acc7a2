"""Jobs about INT8 that loses too much: how sensitive products are, which stay float, recovery in a run."""
