"""Passes over an exported ONNX graph, on onnx-ir: from the trained grid to the form that a target fuses."""
