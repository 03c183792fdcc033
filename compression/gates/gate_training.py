"""How gates learn what to skip: with the task's loss, and a target for the share that is computed.

In: a model with gates, an objective, samples. Out: an objective, a hook, measured shares. Imports torch.

The square of the distance to a target rate: Veit and Belongie, "Convolutional Networks with Adaptive Inference Graphs",
ECCV 2018, section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import nn

from compression.context import Context
from compression.gates.row_gates import RowGate, let_gates_learn
from compression.models.forward import run_model
from compression.objectives.objective import Objective
from compression.samples import Batch, Samples, read_batches
from compression.training.loop import Training

_BATCH_SIZE = 64


class Gated(Protocol):
    """A module with a gate in it."""

    threshold: float
    probability: torch.Tensor | None

    @property
    def gate(self) -> RowGate:
        """The module whose output is scores, [rows] or [rows, parts]."""
        ...


class GateOptions(Protocol):
    """What the options of every step with gates have."""

    @property
    def share(self) -> float:
        """What is to run, of rows times gates."""
        ...

    @property
    def share_weight(self) -> float:
        """How much the square of the distance to that counts in the loss."""
        ...

    @property
    def gates(self) -> Training:
        """How the gates learn, alone."""
        ...

    @property
    def train(self) -> Training | None:
        """How the model then learns to live with them."""
        ...


def learn_gates(model: nn.Module, gated: Mapping[str, Gated], options: GateOptions, context: Context) -> None:
    """Train the gates of ``model`` alone, then, where asked, all of it."""
    watch = WatchGates(gated)

    def train(training: Training, name: str) -> None:
        objective = limit_runs(context.make_objective(model, training), gated, options.share, options.share_weight)
        context.train(model, training, name=name, hooks=(watch,), objective=objective)

    with let_gates_learn(module.gate for module in gated.values()):
        with freeze_all_but(model, gated):
            train(options.gates, "gates")
        if options.train is not None:
            train(options.train, "train")


def limit_runs(objective: Objective, gated: Mapping[str, Gated], share: float, weight: float) -> Objective:
    """Add to a loss the distance of what runs from ``share`` of all, squared, times ``weight``."""

    def measure(batch: Batch) -> torch.Tensor:
        loss = objective.loss(batch)
        return loss + weight * (average_probability(gated) - share).square()

    return replace(objective, loss=measure)


def average_probability(gated: Mapping[str, Gated]) -> torch.Tensor:
    """Return how likely the gates were to run what is behind them, over all of them, in the last forward pass."""
    found = [module.probability for module in gated.values() if module.probability is not None]
    return torch.cat([probability.flatten() for probability in found]).mean()


class WatchGates:
    """Shows what share runs; a hook of :func:`compression.training.loop.run_training` with nothing to keep."""

    def __init__(self, gated: Mapping[str, Gated]) -> None:
        self._gated, self._share = gated, 1.0

    def before_step(self, model: nn.Module, progress: float) -> None:
        """Do nothing."""

    def after_step(self, model: nn.Module, progress: float) -> None:  # noqa: ARG002 - the protocol of a hook
        """Remember the share, and let go of the batch's graph."""
        self._share = float(average_probability(self._gated).detach())
        for module in self._gated.values():
            module.probability = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return nothing."""
        return {}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take nothing."""

    def measures(self) -> dict[str, float]:
        """Return the share of the last update as ``share_run``."""
        return {"share_run": self._share}


@contextmanager
def freeze_all_but(model: nn.Module, gated: Mapping[str, Gated]) -> Iterator[None]:
    """Let only the gates learn while the context is open."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gates = {id(parameter) for module in gated.values() for parameter in module.gate.parameters()}
    for parameter in learning:
        parameter.requires_grad_(id(parameter) in gates)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def measure_runs(model: nn.Module, gated: Mapping[str, Gated], samples: Samples) -> dict[str, float]:
    """Return for each gate the share of rows (and parts) that run on ``samples``; the model is in evaluation mode."""
    runs = dict.fromkeys(gated, 0.0)

    def note(name: str, threshold: float, _gate: nn.Module, _args: object, scores: torch.Tensor) -> None:
        runs[name] += float((scores > threshold).double().flatten(1).mean(dim=1).sum())

    hooks = [module.gate.register_forward_hook(partial(note, name, module.threshold)) for name, module in gated.items()]
    try:
        with torch.no_grad():
            for batch in read_batches(samples, _BATCH_SIZE):
                run_model(model.eval(), batch.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: count / len(samples) for name, count in runs.items()}
