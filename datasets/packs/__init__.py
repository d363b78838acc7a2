"""Packs: images or ready model inputs in one HDF5 file; reading and writing them."""
