"""The training loop: AdamW, linear warm-up and decay, clipping, hooks, and going on after a kill to the same bits.

In: a model, an objective and samples. Out: the model, trained in place. Imports torch.

AdamW: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019 (arXiv:1711.05101).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from compression.distillation.objective import DistilOptions
from compression.objectives.objective import Objective
from compression.objectives.precision import Precision, compute_in
from compression.options import OptionError
from compression.samples import Samples, plan_batches
from compression.training.freed_memory import keep_freed_memory
from compression.training.journal import Journal
from compression.training.resume import Learners, read_numbers, read_state, write_state
from compression.training.workplace import STATE_SUFFIX
from runtimes.errors import BudgetMissed

_LOG_EVERY_UPDATES = 10
_STATE_EVERY_S = 30.0
Measures = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How to train: the sub-table ``train`` of a step.

    Attributes:
        epochs: Times that every sample is seen.
        batch_size: Samples an update.
        learning_rate: The highest, reached after the warm-up.
        warmup: Share of the updates in which the rate rises from 0; then it falls to 0, both in a line.
        weight_decay: Of matrices; vectors (biases, norms, scales) do not decay.
        max_grad_norm: Gradients longer than this are scaled down to it.
        distil: What to learn from a teacher; None learns the task from labels (or masked tokens) alone.
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 5e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    distil: DistilOptions | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)} is below 1", "give a whole number of at least 1")
        for name in ("learning_rate", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise OptionError(name, f"{getattr(self, name)} is not above 0", "give a number above 0")
        if not 0 <= self.warmup < 1:
            raise OptionError("warmup", f"{self.warmup} is not in [0, 1)", "give a share of the updates, such as 0.1")
        if self.weight_decay < 0:
            raise OptionError("weight_decay", f"{self.weight_decay} is below 0", "give 0 or more")


class Hook(Protocol):
    """What else happens at every update. Its random numbers, if any, come from torch's own generator."""

    def before_step(self, model: nn.Module, progress: float) -> None:
        """Called before the forward pass; ``progress`` runs from 0 to below 1 over the training."""
        ...

    def after_step(self, model: nn.Module, progress: float) -> None:
        """Called after the optimizer's step, with the (clipped) gradients of it still there."""
        ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what must survive a kill."""
        ...

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take back what :meth:`tensors` gave."""
        ...

    def measures(self) -> dict[str, float]:
        """Return what to show, such as ``{"sparsity": 0.61}``."""
        ...


def _say_nothing(_entry: Mapping[str, object]) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logbook:
    """Where a training keeps its state and its metrics, and whom it tells; without a folder nothing is kept.

    ``head`` opens every entry: which step of the recipe it belongs to; ``place`` says it in words, for errors.
    """

    folder: Path | None = None
    journal: Journal | None = None
    tell: Callable[[Mapping[str, object]], None] = _say_nothing
    head: Mapping[str, object] = field(default_factory=dict)
    place: str = "training"

    def write(self, entry: Mapping[str, object]) -> None:
        """Append an entry to the metrics and tell it."""
        whole = {**self.head, **entry}
        if self.journal is not None:
            self.journal.write(whole)
        self.tell(whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One training: what learns from what.

    ``evaluate`` measures the model on held-out samples; None where there are none. ``seed`` is of this training, and
    ``precision`` of its forward passes.
    """

    name: str
    seed: int
    samples: Samples
    objective: Objective
    hooks: Sequence[Hook] = ()
    extra: Mapping[str, nn.Module] = field(default_factory=dict)
    evaluate: Callable[[nn.Module], Measures] | None = None
    precision: Precision = "fp32"


def run_training(model: nn.Module, training: Training, task: Task, logbook: Logbook) -> None:
    """Train ``model`` in place, from where a killed run of the same training stopped; leave it in evaluation mode.

    Raises:
        BudgetMissed: the loss is NaN or infinite.
        OutputError: no room to keep the state.
        CorruptArtifact: the kept state cannot be used.
    """
    modules = {"model": model, **task.objective.modules, **task.extra}
    learners = Learners(modules=modules, optimizer=make_optimizer(modules, training), keepers=task.hooks)
    torch.manual_seed(task.seed)
    state = None if logbook.folder is None else logbook.folder / f"{task.name}{STATE_SUFFIX}"
    with keep_freed_memory():
        _Loop(model, training, task, logbook, learners, state).run()
    model.eval()


def make_optimizer(modules: Mapping[str, nn.Module], training: Training) -> torch.optim.Optimizer:
    """Return AdamW over every parameter that learns, each once; vectors, scalars and scales do not decay."""
    named = [pair for module in modules.values() for pair in module.named_parameters() if pair[1].requires_grad]
    learning = {id(parameter): (name, parameter) for name, parameter in named}
    decays: list[nn.Parameter] = []
    stays: list[nn.Parameter] = []
    for name, parameter in learning.values():
        # The scales of blocks are a matrix, and logarithms: decay would pull them to 1.
        (decays if parameter.dim() > 1 and "_scale" not in name else stays).append(parameter)
    groups = [
        {"params": decays, "weight_decay": training.weight_decay},
        {"params": stays, "weight_decay": 0.0},
    ]
    # Fused: one pass over the memory of each parameter in place of ten.
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=training.learning_rate, fused=True)


def schedule_rate(training: Training, update: int, total: int) -> float:
    """Return the learning rate of an update, counted from 0: up in a line, then down in a line to 0."""
    rising = math.ceil(training.warmup * total)
    if update < rising:
        return training.learning_rate * (update + 1) / rising
    return training.learning_rate * (total - update) / (total - rising)


def derive_seed(*parts: object) -> int:
    """Return a seed for one purpose, the same for the same parts."""
    digest = hashlib.sha256(repr(parts).encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "little")


class _Loop:
    """The state of a running loop: where it is, and the losses since the last entry."""

    def __init__(
        self,
        model: nn.Module,
        training: Training,
        task: Task,
        logbook: Logbook,
        learners: Learners,
        state: Path | None,
    ) -> None:
        self._model, self._training, self._task, self._logbook = model, training, task, logbook
        self._learners, self._state = learners, state
        self._an_epoch = math.ceil(len(task.samples) / training.batch_size)
        self._total = self._an_epoch * training.epochs
        self._losses: list[float] = []
        self._kept = self._started = time.monotonic()
        self._first = 0

    def run(self) -> None:
        self._first = self._restore()
        for epoch in range(self._first // self._an_epoch, self._training.epochs):
            self._run_epoch(epoch)

    def _run_epoch(self, epoch: int) -> None:
        batches = plan_batches(self._task.samples, self._training.batch_size, self._task.seed, epoch)
        begin = max(0, self._first - epoch * self._an_epoch)
        for place, indices in enumerate(batches[begin:], start=begin):
            update = epoch * self._an_epoch + place
            self._update(update, indices)
            last = place == len(batches) - 1
            if last or (update + 1) % _LOG_EVERY_UPDATES == 0:
                self._log(update, epoch_ends=last)
            if last or time.monotonic() - self._kept > _STATE_EVERY_S:
                self._keep(update + 1)

    def _update(self, update: int, indices: tuple[int, ...]) -> None:
        progress = update / self._total
        optimizer = self._learners.optimizer
        for module in self._learners.modules.values():
            module.train()
        for group in optimizer.param_groups:
            group["lr"] = schedule_rate(self._training, update, self._total)
        optimizer.zero_grad(set_to_none=True)
        for hook in self._task.hooks:
            hook.before_step(self._model, progress)
        with compute_in(self._task.precision):
            loss = self._task.objective.loss(self._task.samples.collate(indices))
        self._refuse_nonfinite(loss, update)
        loss.backward()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self._training.max_grad_norm)
        self._refuse_nonfinite(norm, update)
        optimizer.step()
        for hook in self._task.hooks:
            hook.after_step(self._model, progress)
        self._losses.append(float(loss.detach()))

    def _refuse_nonfinite(self, value: torch.Tensor, update: int) -> None:
        if math.isfinite(float(value.detach())):
            return
        raise BudgetMissed(
            f"the loss or its gradient is {float(value.detach())}: the training has diverged",
            where=f"{self._logbook.place}: {self._task.name}, update {update + 1} of {self._total}",
            cure=f"lower learning_rate ({self._training.learning_rate:g} now) or max_grad_norm "
            f"({self._training.max_grad_norm:g} now), or raise warmup: the same command then goes on with this step",
        )

    def _log(self, update: int, *, epoch_ends: bool) -> None:
        spent = time.monotonic() - self._started
        entry: dict[str, object] = {
            "training": self._task.name,
            "update": update + 1,
            "updates": self._total,
            "epoch": (update + 1) / self._an_epoch,
            "loss": math.fsum(self._losses) / len(self._losses),
            "learning_rate": schedule_rate(self._training, update, self._total),
        }
        self._losses.clear()
        for hook in self._task.hooks:
            entry.update(hook.measures())
        if epoch_ends and self._task.evaluate is not None:
            entry["held_out"] = dict(self._task.evaluate(self._model))
        left = self._total - update - 1
        entry["left_s"] = round(spent / (update + 1 - self._first) * left, 1)
        self._logbook.write(entry)

    def _keep(self, updates: int) -> None:
        if self._state is None:
            return
        journal = self._logbook.journal
        written = journal.size_bytes() if journal is not None else 0
        numbers = {"updates": updates, "metrics_bytes": written, "losses": self._losses}
        write_state(self._state, self._learners, numbers)
        self._kept = time.monotonic()

    def _restore(self) -> int:
        """Return the update to begin with, everything else being as it was then."""
        numbers = None if self._state is None else read_state(self._state, self._learners)
        if numbers is None:
            return 0
        if self._logbook.journal is not None:
            self._logbook.journal.cut_back(self._find_end())
        self._losses = numbers["losses"]
        updates: int = numbers["updates"]
        return updates

    def _find_end(self) -> int:
        """Return how many bytes of the metrics stay: those up to the last state of any training of the step."""
        assert self._state is not None
        states = self._state.parent.glob(f"*{STATE_SUFFIX}")
        return max(read_numbers(state)["metrics_bytes"] for state in states)
