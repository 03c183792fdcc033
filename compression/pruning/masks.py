"""Zeros that training must not fill: they are held, their gradients with them.

In: a model that is about to be trained. Out: a hook of the training loop. Imports torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

# A few zeros are chance or rounding; what was pruned has more.
PRUNED_FROM = 0.05


class KeepZeros:
    """Holds the exact zeros of pruned linears; a hook of :func:`compression.training.loop.run_training`.

    Pruned is every module with inputs and outputs, of whatever class, whose weight has at least 5 % zeros.
    """

    def __init__(self, model: nn.Module, *, without: Collection[str] = (), always: Collection[str] = ()) -> None:
        """Remember where the zeros are now: not those of the modules ``without``, however few those of ``always``."""
        self._held = HeldZeros(
            {
                name: weight
                for name, weight in list_weights(model).items()
                if name not in without and (name in always or measure_zeros([weight]) >= PRUNED_FROM)
            }
        )

    def before_step(self, model: nn.Module, progress: float) -> None:  # noqa: ARG002 - the protocol of a hook
        """Have the gradients of the zeros dropped, before they count in the norm that is clipped."""
        self._held.drop_gradients()

    def after_step(self, model: nn.Module, progress: float) -> None:  # noqa: ARG002 - the protocol of a hook
        """Put the zeros back."""
        self._held.restore()

    def tensors(self) -> dict[str, Tensor]:
        """Return where the zeros are."""
        return self._held.tensors()

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what :meth:`tensors` gave."""
        self._held.load_tensors(tensors)

    def measures(self) -> dict[str, float]:
        """Return the share of zeros in what is held."""
        return self._held.measures()


class HeldZeros:
    """Parameters and, for each, where it is zero."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = dict(weights)
        self._zeros = {name: weight.detach() == 0 for name, weight in weights.items()}
        self._handles: list[RemovableHandle] = []

    def hold(self, name: str, kept: Tensor) -> None:
        """From now on hold zeros in one weight where it is not ``kept``."""
        self._zeros[name].copy_(~kept)

    def drop_gradients(self) -> None:
        """Zero the gradient of each zero as soon as it is there, until :meth:`restore`; what is frozen has none."""
        self._handles = [
            weight.register_post_accumulate_grad_hook(lambda it, zeros=self._zeros[name]: _clear_gradient(it, zeros))
            for name, weight in self._weights.items()
            if weight.requires_grad
        ]

    def restore(self) -> None:
        """Set to zero what must be: the optimizer's momentum and decay move what has no gradient as well."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.masked_fill_(self._zeros[name], 0.0)

    def tensors(self) -> dict[str, Tensor]:
        """Return where the zeros are, bool as the weights."""
        return dict(self._zeros)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`tensors` gave."""
        for name, zeros in self._zeros.items():
            zeros.copy_(tensors[name])

    def measures(self) -> dict[str, float]:
        """Return the share of zeros over all weights as ``sparsity``; nothing where there are no weights."""
        total = sum(zeros.numel() for zeros in self._zeros.values())
        return {"sparsity": sum(int(zeros.sum()) for zeros in self._zeros.values()) / total} if total else {}


def list_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weight of every linear by its name, whatever its class: embeddings have no ``in_features``."""
    return {
        name: module.weight
        for name, module in model.named_modules()
        if hasattr(module, "in_features") and isinstance(getattr(module, "weight", None), nn.Parameter)
    }


def measure_zeros(weights: Collection[Tensor]) -> float:
    """Return the share of exact zeros over all weights, in 0..1."""
    total = sum(weight.numel() for weight in weights)
    return 1.0 - sum(int(torch.count_nonzero(weight)) for weight in weights) / total if total else 0.0


def _clear_gradient(weight: Tensor, zeros: Tensor) -> None:
    if weight.grad is not None:
        weight.grad.masked_fill_(zeros, 0.0)
