"""Arrays as data: NumPy's files, and what Python code gives, as a model's inputs or as images."""
