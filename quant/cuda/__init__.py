"""GPU memory, streams and events, and the feed that keeps calibration batches there."""
