"""``stepdown plan``: a model and samples in, a recipe with what it should bring out."""
