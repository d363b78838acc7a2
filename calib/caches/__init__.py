"""Calibration caches: TensorRT's text format, provenance, conversion, comparison and merging."""
