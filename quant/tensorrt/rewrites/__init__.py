"""Rewrites of Q/DQ models that TensorRT 8 needs to build them, or to build them fast."""
