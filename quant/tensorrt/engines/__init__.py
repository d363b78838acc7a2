"""Engines as files, on the GPU, and layer by layer."""
