"""Leaving an encoder early: layers learn to end where any of them may be the last, and a gate learns when to go on.

In: a model, an objective. Out: objectives for a training. Imports torch.

One gate for all exits that tells how sure an exit is, trained on what the model does and not on how it looks: Xin et
al., "BERxiT: Early Exiting for BERT with Better Fine-Tuning and Extension to Regression", EACL 2021. It is the same at
every exit, and a row that left keeps its hidden state: what it said once, it goes on saying.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from compression.gates.row_gates import RowGate, summarise
from compression.models.forward import run_model
from compression.objectives.objective import Objective
from compression.samples import Batch
from runtimes.errors import UnsupportedModel


def learn_exits(model: nn.Module, stack: str, whole: Objective, early: Objective) -> Objective:
    """Return the loss of the whole model plus that behind one of its other layers, drawn anew for each batch.

    Draws from torch's own generator. The mean over draws is deep supervision of every layer, at half the price of it.
    """

    def measure(batch: Batch) -> torch.Tensor:
        loss = whole.loss(batch)
        with _leave_after(model, stack, _draw_exit(model, stack)):
            return loss + early.loss(batch)

    assert all(early.modules[name] is module for name, module in whole.modules.items() if name in early.modules)
    return Objective(loss=measure, modules={**whole.modules, **early.modules})


def learn_doubt(model: nn.Module, stack: str, gate: RowGate) -> Objective:
    """Return the loss of a gate that is to say how far the answer at an exit is from the one at the end.

    The model does not learn. Exits are drawn as in :func:`learn_exits`; neither labels nor a teacher are needed.
    """

    def measure(batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            final = run_model(model.eval(), batch.inputs)
            with _leave_after(model, stack, _draw_exit(model, stack)), _record_inputs(model, stack) as seen:
                left = run_model(model, batch.inputs)
        return nn.functional.binary_cross_entropy_with_logits(
            gate(summarise(*seen)).squeeze(-1), compare_answers(left, final)
        )

    return Objective(loss=measure, modules={"gate": gate})


def compare_answers(left: torch.Tensor, final: torch.Tensor) -> torch.Tensor:
    """Return how far answers [rows, classes] are apart, [rows] in 0..1.

    For classes half the sum of the differences of probabilities (total variation); for one score the hyperbolic tangent
    of the difference, as BERxiT has it.

    Raises:
        UnsupportedModel: the model gives no one answer a row.
    """
    if final.dim() != 2:
        raise UnsupportedModel(
            f"the model gives {final.dim() - 1} axes of answers a row, an exit needs one answer",
            where="logits",
            cure="leave exit-early out of the recipe: it is for classifiers and scores",
        )
    if final.shape[1] == 1:
        return torch.tanh((left - final).abs()).squeeze(-1)
    return 0.5 * (left.softmax(dim=-1) - final.softmax(dim=-1)).abs().sum(dim=-1)


@contextmanager
def _leave_after(model: nn.Module, stack: str, count: int) -> Iterator[None]:
    """Let the first ``count`` layers be all of them."""
    whole = model.get_submodule(stack)
    model.set_submodule(stack, nn.ModuleList(list(whole.children())[:count]), strict=True)
    try:
        yield
    finally:
        model.set_submodule(stack, whole, strict=True)


@contextmanager
def _record_inputs(model: nn.Module, stack: str) -> Iterator[list[Any]]:
    """Record what a gate behind the last layer would see: its hidden states and the mask it was given."""
    seen: list[Any] = []  # a tensor, and one or None

    def note(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], made: object) -> None:
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        assert isinstance(made, torch.Tensor)
        assert mask is None or isinstance(mask, torch.Tensor)
        seen[:] = [made, mask]

    layers = list(model.get_submodule(stack).children())
    hook = layers[-1].register_forward_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def _draw_exit(model: nn.Module, stack: str) -> int:
    """Return after how many layers to leave: at least one, and not all."""
    count = sum(1 for _ in model.get_submodule(stack).children())
    return int(torch.randint(1, count, ()))
