"""What is measured of models that generate: engines, their processes, times of each token."""
