"""PyTorch to ONNX, step by step, put together in ``trace.py``. The one part of exporter with torch."""
