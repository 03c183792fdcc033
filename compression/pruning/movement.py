"""Pruning while training by where weights move: those that shrink leave, whatever their size.

In: linears, what is wanted, a schedule. Out: a hook of the training loop. Imports torch.

Sanh, Wolf and Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", NeurIPS 2020 (arXiv:2005.07683).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from compression.pruning.gradual import CubicSchedule, Goal
from compression.pruning.magnitude import choose_masks

# Of a score's step, in mean magnitudes of the layer: a few hundred updates can move it by about one.
_RATE = 2e-3
# Adam's, without the correction of its first steps.
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-12


class PruneByMovement:
    """Keeps the weights of the highest score, magnitude to begin with, then ``-sum(gradient * weight)``; a hook.

    As in the paper (section 4, eq. 5) scores learn with Adam, a pruned weight keeps its value aside and collects a
    score like any other, and which are kept is chosen anew at every update: it can come back. The paper's scores start
    at 0. Those of a model that has learned its task then tell no more than where the last batches pulled all weights
    together: MiniLM on film reviews, without the 2 % of least score, answered by chance.
    """

    def __init__(self, linears: Mapping[str, nn.Linear], goal: Goal, schedule: CubicSchedule) -> None:
        self._goal, self._schedule = goal, schedule
        self._weights = {name: linear.weight for name, linear in linears.items()}
        self._values = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._scores = {name: _score_magnitude(values) for name, values in self._values.items()}
        self._means = {name: torch.zeros_like(values) for name, values in self._values.items()}
        self._squares = {name: torch.zeros_like(values) for name, values in self._values.items()}
        self._kept = {name: values != 0 for name, values in self._values.items()}
        self._share = torch.tensor(schedule.first, dtype=torch.float64)
        self._handles: list[RemovableHandle] = []

    def before_step(self, model: nn.Module, progress: float) -> None:  # noqa: ARG002 - the protocol of a hook
        """Prune up to what the schedule says, and have the gradients that come scored."""
        self._prune(self._schedule.share_at(progress))
        self._handles = [
            weight.register_post_accumulate_grad_hook(lambda it, name=name: self._note_gradient(name, it.grad))
            for name, weight in self._weights.items()
        ]

    def after_step(self, model: nn.Module, progress: float) -> None:  # noqa: ARG002 - the protocol of a hook
        """Put the zeros back, and keep the values that were learned."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        with torch.no_grad():
            for name, weight in self._weights.items():
                self._values[name] = torch.where(self._kept[name], weight, self._values[name])
                weight.masked_fill_(~self._kept[name], 0.0)

    def finish(self) -> None:
        """Prune what is left to prune: a short training may end before the last stage."""
        self._prune(self._goal.share)

    def tensors(self) -> dict[str, Tensor]:
        """Return scores with what their steps are made of, values, masks, and which share they prune."""
        learned = {"scores": self._scores, "means": self._means, "squares": self._squares}
        kinds = {**learned, "values": self._values, "kept": self._kept}
        found = {f"{kind}.{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}
        return {**found, "share": self._share}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what :meth:`tensors` gave."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])

    def measures(self) -> dict[str, float]:
        """Return the share of zeros."""
        total = sum(kept.numel() for kept in self._kept.values())
        return {"sparsity": 1.0 - sum(int(kept.sum()) for kept in self._kept.values()) / total}

    def _note_gradient(self, name: str, gradient: Tensor | None) -> None:
        assert gradient is not None, "the hook runs when the gradient is there"
        # The gradient is that of the masked weight, straight through to every value (section 4, eq. 3-4).
        moved = gradient * self._values[name]
        mean = self._means[name].lerp_(moved, 1.0 - _BETA1)
        square = self._squares[name].lerp_(moved.square_(), 1.0 - _BETA2)
        self._scores[name].addcdiv_(mean, square.sqrt().add_(_EPSILON), value=-_RATE)
        gradient.masked_fill_(~self._kept[name], 0.0)

    def _prune(self, share: float) -> None:
        if share == self._schedule.first:
            return
        self._kept = choose_masks(self._scores, share, self._goal.pattern, self._goal.scope)
        self._share.fill_(share)
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(self._values[name] * self._kept[name])


def _score_magnitude(values: Tensor) -> Tensor:
    """Return magnitudes of mean 1, so that a step weighs the same in every layer; zeros where there is nothing else."""
    magnitudes = values.abs()
    return magnitudes / magnitudes.mean().clamp_min(torch.finfo(magnitudes.dtype).tiny)
