"""`stepdown pack`: exported directories in, one bundle out, the same bytes for the same input."""
