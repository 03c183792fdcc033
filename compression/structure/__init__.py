"""What leaves a model as a whole, so that its checkpoint is smaller: heads, neurons, layers."""
