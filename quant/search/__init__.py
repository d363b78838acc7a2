"""Which choice of scales serves a model best, measured on its outputs."""
