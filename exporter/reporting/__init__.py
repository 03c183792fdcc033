"""What an export measured and decided: written, read again, drawn."""
