"""What a stored matrix looks like. Plain data."""
