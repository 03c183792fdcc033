"""GPT-2's ``Conv1D`` as a linear, so that every step works on it.

In: a transformers model. Out: the same model, its Conv1D modules being linears that still read and write the weight as
transformers keeps it, [inputs, outputs]: what is saved loads in transformers alone. Imports torch.

To teach every step two layouts of a weight would be the other way, in twenty places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn


class TurnedLinear(nn.Linear):
    """A linear whose weight is [outputs, inputs] here and [inputs, outputs] in a state dict."""

    kind: ClassVar[str] = "conv1d"

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> Self:
        """Make one with no weights yet, from what :meth:`describe` gave."""
        return cls(int(described["inputs"]), int(described["outputs"]), bias=bool(described["bias"]))

    def describe(self) -> dict[str, Any]:
        """Return its sizes, plain data."""
        return {"inputs": self.in_features, "outputs": self.out_features, "bias": self.bias is not None}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:  # noqa: ANN401 - torch's
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = destination[f"{prefix}weight"].t()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:  # noqa: ANN401 - torch's
        name = f"{prefix}weight"
        turned = {name: state_dict[name].t()} if name in state_dict else {}
        super()._load_from_state_dict({**state_dict, **turned}, prefix, *rest)


def turn_conv1d(model: nn.Module) -> nn.Module:
    """Put a :class:`TurnedLinear` in the place of every Conv1D of ``model``, and return it."""
    found: list[tuple[str, Any]] = [(name, it) for name, it in model.named_modules() if type(it).__name__ == "Conv1D"]
    for name, module in found:
        made = TurnedLinear(module.nx, module.nf).train(module.training)
        with torch.no_grad():
            made.weight.copy_(module.weight.t())
            made.bias.copy_(module.bias)
        model.set_submodule(name, made, strict=True)
    return model


def make_like(linear: nn.Linear, inputs: int, outputs: int) -> nn.Linear:
    """Return a new linear of other sizes that is saved as ``linear`` is."""
    kind = TurnedLinear if isinstance(linear, TurnedLinear) else nn.Linear
    return kind(inputs, outputs, bias=linear.bias is not None)
