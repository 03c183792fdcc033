"""Linears that train with the rounding of INT8: learned step sizes, exported as QuantizeLinear / DequantizeLinear.

In: a model and the names of its linears. Out: the model with those replaced. Imports torch.

Learned step size quantization: Esser et al., "Learned Step Size Quantization", ICLR 2020 (arXiv:1902.08153).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn

LOW, HIGH = -128, 127


class FakeQuantisedLinear(nn.Module):
    """A linear whose input (one scale) and weight (a scale for each output) are rounded to symmetric int8.

    Weights stay float32 and trainable, shape (outputs, inputs); so do the scales. While a program is exported the
    rounding becomes ONNX QuantizeLinear and DequantizeLinear with the learned scales.
    """

    kind: ClassVar[str] = "fake_quantised"

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.input_scale = nn.Parameter(torch.ones(()))
        self.weight_scale = nn.Parameter(torch.ones(out_features))

    @classmethod
    def from_linear(cls, linear: nn.Linear, mean_abs_input: float) -> FakeQuantisedLinear:
        """Start from a trained linear; scales as Esser et al. section 2.1: ``2 mean(|x|) / sqrt(HIGH)``."""
        made = cls(linear.in_features, linear.out_features, bias=linear.bias is not None)
        smallest = torch.finfo(torch.float32).tiny  # a dead input or row still needs a scale to divide by
        with torch.no_grad():
            made.weight.copy_(linear.weight)
            if made.bias is not None:
                made.bias.copy_(linear.bias)
            made.weight_scale.copy_(linear.weight.abs().mean(dim=1).mul(2 / math.sqrt(HIGH)).clamp_min(smallest))
            made.input_scale.fill_(max(2 * mean_abs_input / math.sqrt(HIGH), smallest))
        return made

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> Self:
        """Make one with no weights yet, from what :meth:`describe` gave."""
        return cls(int(described["inputs"]), int(described["outputs"]), bias=bool(described["bias"]))

    def describe(self) -> dict[str, Any]:
        """Return its sizes, plain data."""
        return {"inputs": self.in_features, "outputs": self.out_features, "bias": self.bias is not None}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) to (..., outputs)."""
        if torch.compiler.is_exporting():
            # The weight is turned before it is rounded, so that the graph holds Q, DQ and a plain MatMul.
            product = torch.matmul(
                _trace_rounding(inputs, self.input_scale, axis=inputs.dim() - 1),
                _trace_rounding(self.weight.t(), self.weight_scale, axis=1),
            )
            return product if self.bias is None else product + self.bias
        rounded = round_to_steps(inputs, self.input_scale, math.prod(inputs.shape[1:]))
        weight = round_to_steps(self.weight, self.weight_scale.unsqueeze(1), self.in_features)
        return nn.functional.linear(rounded, weight, self.bias)


def round_to_steps(values: torch.Tensor, scale: torch.Tensor, count: int) -> torch.Tensor:
    """Round to whole steps of ``scale`` inside [LOW, HIGH] steps, with gradients for both (Esser et al., eq. 1-3).

    Args:
        values: Any shape.
        scale: Positive, broadcastable to ``values``.
        count: How many values share one scale; its gradient is divided by ``sqrt(count * HIGH)``.
    """
    damping = 1.0 / math.sqrt(count * HIGH)
    step = scale * damping + (scale - scale * damping).detach()
    steps = (values / step).clamp(LOW, HIGH)
    return (steps + (steps.round() - steps).detach()) * step


def fake_quantise(model: nn.Module, names: Iterable[str], run: Callable[[nn.Module], object]) -> None:
    """Replace the named linears of ``model``; ``run`` feeds it some batches to see how large their inputs are.

    Raises:
        ValueError: a name is not a linear, or ``run`` did not reach it.
    """
    wanted = tuple(names)
    seen: dict[str, list[float]] = {name: [] for name in wanted}
    hooks = []
    for name in wanted:
        linear = model.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"'{name}' is a {type(linear).__name__}, not a Linear")
        note = seen[name].append
        hooks.append(linear.register_forward_pre_hook(lambda _, args, note=note: note(float(args[0].abs().mean()))))
    try:
        with torch.no_grad():
            run(model)
    finally:
        for hook in hooks:
            hook.remove()
    for name, means in seen.items():
        if not means:
            raise ValueError(f"'{name}' was not reached")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        model.set_submodule(name, FakeQuantisedLinear.from_linear(linear, sum(means) / len(means)))


def _trace_rounding(values: torch.Tensor, scale: torch.Tensor, *, axis: int) -> torch.Tensor:
    zero = torch.zeros(scale.shape, dtype=torch.int8)
    # With one scale for everything the attribute has no meaning.
    place = axis if scale.dim() else 0
    whole = torch.onnx.ops.symbolic(
        "QuantizeLinear", (values, scale, zero), {"axis": place}, dtype=torch.int8, shape=values.shape
    )
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", (whole, scale, zero), {"axis": place}, dtype=torch.float32, shape=values.shape
    )
