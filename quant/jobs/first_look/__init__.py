"""A first look at a model and its data: what a configuration can be guessed from."""
