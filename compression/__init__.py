"""PyTorch in, smaller PyTorch out."""
