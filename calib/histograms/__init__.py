"""Histograms of |x|: counting activations, merging, storing, and the noise that an amax causes."""
