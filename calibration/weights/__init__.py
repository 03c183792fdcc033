"""Weights of a decoder in blocks of few bits: how they are rounded, and what the rounding looks at."""
