"""The vocabulary, and the embeddings that belong to it."""
