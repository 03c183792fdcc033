"""Every way to make a model smaller."""
