"""How a model is run, and what it is made of: layers, heads, neurons, what they see and give."""
