"""A run's builds beside its calibration and evaluation."""
