"""Engines out of ONNX models: network, options, calibrators, builds."""
