"""What a run does for the task of its model: finding it, and what a detector needs besides."""
