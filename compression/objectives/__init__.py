"""What a training makes small, and what a model is measured by."""
