"""Forms of explicit models, and what each TensorRT makes of them."""
