"""PyTorch to ONNX, step by step; :mod:`exporter.trace` puts the steps together. The one part of exporter with torch."""
