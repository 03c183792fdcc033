"""Sparse kernels, layer by layer and in whole models."""
