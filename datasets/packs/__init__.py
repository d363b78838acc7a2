"""Reading and writing packs: images or ready-made model inputs in one HDF5 file."""
