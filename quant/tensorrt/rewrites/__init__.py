"""Rewrites of models, without which TensorRT 8 misreads them, cannot build them, or builds slow engines."""
