"""Graph passes: one edit per module, each returns a new model."""
