"""The training loop, and going on after a kill."""
