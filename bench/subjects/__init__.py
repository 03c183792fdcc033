"""What is measured: a model that a process of its own opens and runs."""
