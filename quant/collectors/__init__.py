"""Collectors run a model on images and count its activations into histograms."""
