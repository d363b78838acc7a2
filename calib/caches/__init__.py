"""Calibration caches: TensorRT's text format, what a cache was made from, conversion, comparison and merging."""
