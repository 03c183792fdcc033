"""Weights of few values: quantisation-aware training, ternary and binary weights."""
