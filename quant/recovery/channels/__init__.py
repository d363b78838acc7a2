"""Channels of different magnitude: which factors move between constants, and by how much that equalizes them."""
