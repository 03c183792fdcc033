"""What a model is made of, read without running it."""
