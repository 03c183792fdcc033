"""A layer that runs only for the rows that want it; when no row of a batch does, it is not computed at all.

In: an encoder layer: hidden states in, hidden states of the same shape out. Out: a module in its place. Imports torch.

Skipping layers by a gate of their own: Veit and Belongie, "Convolutional Networks with Adaptive Inference Graphs", ECCV
2018 (arXiv:1711.11503).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.utils import _pytree as pytree

from compression.gates.row_gates import RowGate, draw_choices, summarise
from compression.gates.run_where import run_where
from runtimes.errors import UnsupportedModel


class GatedLayer(nn.Module):
    """A layer and its gate. Rows whose score is not above ``threshold`` keep their input.

    What a row gets does not depend on the other rows of its batch. While the gate learns every layer is computed and
    the choice is drawn; ``probability`` [rows] then holds how likely each row was to want it, with gradients.
    """

    kind: ClassVar[str] = "gated_layer"

    def __init__(self, layer: nn.Module, gate: RowGate, *, threshold: float = 0.0) -> None:
        super().__init__()
        self.layer, self.gate, self.threshold = layer, gate, threshold
        self.probability: torch.Tensor | None = None

    @classmethod
    def wrap(cls, module: nn.Module, described: Mapping[str, Any]) -> Self:
        """Put a gate, its weights yet to be loaded, before ``module``."""
        return cls(module, RowGate(int(described["features"])), threshold=float(described["threshold"]))

    def describe(self) -> dict[str, Any]:
        """Return the gate's sizes, plain data."""
        return {"features": self.gate.features, "threshold": self.threshold}

    def forward(self, hidden_states: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        """Map [rows, tokens, features] to the same; what else is given goes to the layer.

        The mask of attention is the first further argument, or is called ``attention_mask``.
        """
        mask = kwargs.get("attention_mask", args[0] if args else None)
        assert mask is None or isinstance(mask, torch.Tensor)
        scores = self.gate(summarise(hidden_states, mask)).squeeze(-1)
        if self.training and self.gate.learns:
            choice = draw_choices(scores - self.threshold)
            self.probability = torch.sigmoid(scores - self.threshold)
            made = _require_hidden(self.layer(hidden_states, *args, **kwargs))
            return hidden_states + choice[:, None, None] * (made - hidden_states)
        return self._run(scores > self.threshold, hidden_states, args, kwargs)

    def _run(
        self, wanted: torch.Tensor, hidden: torch.Tensor, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> torch.Tensor:
        # A branch of a traced graph takes tensors alone: what is none of them is put back around them.
        leaves, spec = pytree.tree_flatten((args, kwargs))
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

        def run(wanted: torch.Tensor, hidden: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
            whole = list(leaves)
            for place, tensor in zip(places, given, strict=True):
                whole[place] = tensor
            args, kwargs = pytree.tree_unflatten(whole, spec)
            made = _require_hidden(self.layer(hidden, *args, **kwargs))
            return torch.where(wanted[:, None, None], made, hidden)

        def skip(_wanted: torch.Tensor, hidden: torch.Tensor, *_given: torch.Tensor) -> torch.Tensor:
            return hidden.clone()

        return run_where(wanted, run, skip, (wanted, hidden, *(leaves[place] for place in places)))


def gate_layer(model: nn.Module, name: str, gate: RowGate, *, threshold: float = 0.0) -> GatedLayer:
    """Put a gate before the layer ``name`` of ``model`` and return both, in the mode the layer is in."""
    layer = model.get_submodule(name)
    gated = GatedLayer(layer, gate, threshold=threshold).train(layer.training)
    model.set_submodule(name, gated, strict=True)
    return gated


def _require_hidden(made: object) -> torch.Tensor:
    if isinstance(made, torch.Tensor):
        return made
    raise UnsupportedModel(
        f"a gated layer gives a {type(made).__name__}, and only hidden states can be skipped",
        where="layers",
        cure="leave gates and exits out of the recipe: this architecture is not laid out for them",
    )
