"""The ONNX model: reading, checking, editing, types and sizes, FP16."""
