"""The report's sections on tasks without maps or boxes, and pictures of what changed."""
