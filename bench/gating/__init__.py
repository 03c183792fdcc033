"""The gate: its rule, and the files, histories and models that it judges."""
