"""Rewrites of Q/DQ models, without which TensorRT 8 cannot build them, or builds slow engines."""
