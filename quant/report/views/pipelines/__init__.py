"""Results in forms that pipelines read."""
