"""GPU memory, streams and events, and the feed that brings calibration batches into GPU memory."""
