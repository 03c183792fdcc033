"""What a measurement was taken on, and how quiet it was."""
