"""Semantic segmentation: which output holds the class of each pixel, and how well that overlaps."""
