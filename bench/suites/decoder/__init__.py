"""Models that generate, against llama.cpp, ONNX Runtime and PyTorch."""
