"""What the gate answers about pairs whose difference is known."""
