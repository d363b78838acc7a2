"""Which layers an engine has, what became of the nodes, and what was tried for it."""
