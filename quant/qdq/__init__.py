"""Which tensors become INT8, and how Q/DQ pairs are written into a model and read from it."""
