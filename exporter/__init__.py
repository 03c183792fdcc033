"""PyTorch to ONNX, graph passes, candidates and their choice, the command line."""
