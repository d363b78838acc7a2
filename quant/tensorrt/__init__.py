"""TensorRT: its bindings, engines and builds."""
