"""Edits that make a float graph an integer graph ONNX Runtime's CPU kernels run."""
