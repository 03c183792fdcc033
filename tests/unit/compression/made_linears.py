"""Linears for tests that think in weights."""

import torch


def as_linear(weight):
    """A linear without bias whose weight [outputs, inputs] is the given one."""
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False).requires_grad_(False)
    linear.weight.copy_(weight)
    return linear
