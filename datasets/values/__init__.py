"""Labels of several values: columns of numbers or texts, and several classes an image."""
