"""The public face: ``import stepdown; stepdown.export(...)``."""
