"""Float ONNX and data in, statistics, a plan and a quantized graph out."""
