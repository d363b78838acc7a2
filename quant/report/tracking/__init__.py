"""Reports in experiment trackers: what of a report goes there, and the clients of MLflow and Weights & Biases."""
