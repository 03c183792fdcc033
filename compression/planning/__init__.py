"""What the layers of a model can bear, and the recipe that follows from it."""
