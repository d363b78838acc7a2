"""Calibration by this toolkit and its peers, timed in processes of their own."""
