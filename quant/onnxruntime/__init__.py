"""Sessions and builds on ONNX Runtime."""
