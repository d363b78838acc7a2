"""Finds the scales that are best for a model, measured on its outputs."""
