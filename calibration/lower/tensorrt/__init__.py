"""Edits that make a float graph one that TensorRT builds as written: explicit Q/DQ, and types in the graph."""
