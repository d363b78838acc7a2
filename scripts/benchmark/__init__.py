"""Calibration by this toolkit and its peers, timed in separate processes."""
