"""Edits that carry out a plan, one module per target."""
