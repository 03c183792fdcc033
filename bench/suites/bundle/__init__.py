"""The bundle: sizes, starts, the same bytes."""
