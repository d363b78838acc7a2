"""Builds engines from ONNX models: network, options, calibrators, builds."""
