"""Sparse linears for ONNX Runtime on the CPU: how weights are stored, what the operators compute, and the library."""
