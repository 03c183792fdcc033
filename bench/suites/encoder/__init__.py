"""Encoders, exported, against peers."""
