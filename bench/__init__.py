"""Measure, keep raw samples, compare."""
