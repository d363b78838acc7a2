"""Which tensors become INT8, and Q/DQ pairs into and out of a model."""
