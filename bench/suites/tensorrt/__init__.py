"""Plans of TensorRT."""
