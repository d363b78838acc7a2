"""Masks as labels of images: where they lie, how they are read, and images that have them."""
