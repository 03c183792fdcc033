"""Zeros in weights: which, when, and how they stay."""
