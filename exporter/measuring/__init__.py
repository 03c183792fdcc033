"""``stepdown bench`` and ``stepdown gate``: from the words of the user to a measurement."""
