"""What a small language model learns of a large one: at every token its softened answers, and its hidden states.

In: a causal student and teacher, samples and options. Out: an :class:`Objective` for the training loop. Imports torch.

Soft labels for each token: Sanh et al., "DistilBERT", 2019 (arXiv:1910.01108), whose loss this is without its cosine.
The teacher's head is applied to the tokens of a piece at a time, as the student's is
(:mod:`compression.objectives.next_token`). A student with fewer pieces learns what the teacher says of those: its
tokens are the teacher's under other numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compression.distillation.kept_states import KeptStates
from compression.distillation.layer_matching import LayerMatch, pair_layers
from compression.distillation.objective import DistilOptions, measure_soft
from compression.distillation.teaching import check_tokens
from compression.models.forward import predicts_next, read_states
from compression.models.layers import find_stack
from compression.models.record_layers import Recorded, record_hidden
from compression.objectives.next_token import apply_head, check_head, find_asked, sum_in_pieces
from compression.objectives.objective import Objective
from compression.objectives.precision import compute_in
from compression.samples import Batch, Samples
from runtimes.errors import UsageError


def make_token_objective(
    model: nn.Module,
    teacher: nn.Module,
    options: DistilOptions,
    samples: Samples,
    seed: int,
    kept: KeptStates | None = None,
) -> Objective:
    """Return the sum of what ``options`` asks for, a mean over tokens; projections learn beside the model.

    Args:
        model: The student.
        teacher: Stays as it is.
        options: What is learned; attention, masked tokens and augmentation are an encoder's.
        samples: What the batches will be made of.
        seed: Of the first values of projections.
        kept: Where the teacher's states are kept, for samples that come again; None computes them every time, as it
            must be where hidden states are matched.

    Raises:
        UsageError: the teacher is no language model, reads other tokens, or what is asked for cannot be had.
        UnsupportedModel: a model changes its logits behind its head.
    """
    _check(model, teacher, options, samples)
    match = None
    if options.hidden_weight:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            match = _match_layers(model, teacher, options)
    lesson = _Lesson(
        model=model,
        teacher=teacher.eval(),
        options=options,
        tell=_make_head(teacher, samples.teacher_ids),
        match=match,
        kept=kept,
    )
    learns = match is not None and next(match.parameters(), None) is not None
    return Objective(loss=lesson.measure, modules={"match": match} if match is not None and learns else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lesson:
    """The loss of a batch, with all that it needs; ``tell`` gives the teacher's logits of the student's pieces."""

    model: nn.Module
    teacher: nn.Module
    options: DistilOptions
    tell: Callable[[torch.Tensor], torch.Tensor]
    match: LayerMatch | None
    kept: KeptStates | None

    def measure(self, batch: Batch) -> torch.Tensor:
        """Return the weighted sum of the losses."""
        options, asked = self.options, find_asked(batch.inputs)
        mine, states = self._read(self.model, batch.inputs, asked)
        if not len(states):
            return states.sum()  # a mean over nothing is no number
        theirs, told = Recorded(), states
        if options.soft_weight or self.match is not None:
            theirs, told = self._ask(batch, asked)
        loss = states.new_zeros(())
        if options.hard_weight or options.soft_weight:
            wanted = batch.inputs["input_ids"][:, 1:][asked]
            total = sum_in_pieces(
                self.model, states, lambda rows, some: self._measure_answers(some, told[rows], wanted[rows])
            )
            loss = loss + total / len(states)
        if self.match is not None:
            mask = batch.inputs.get("attention_mask", torch.ones_like(batch.inputs["input_ids"]))
            with compute_in("fp32"):
                loss = loss + options.hidden_weight * self.match.measure_hidden(mine, theirs, mask.bool())
        return loss

    @torch.no_grad()
    def _ask(self, batch: Batch, asked: torch.Tensor) -> tuple[Recorded, torch.Tensor]:
        if self.kept is None:
            return self._read(self.teacher, batch.teacher_inputs, asked)
        states = self.kept.read(batch, lambda: read_states(self.teacher, batch.teacher_inputs))
        return Recorded(), states[:, :-1][asked]

    def _read(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], asked: torch.Tensor
    ) -> tuple[Recorded, torch.Tensor]:
        """Return what the layers computed, where that is matched, and the states that the head reads [asked, width]."""
        with record_hidden(_list_layers(model)) if self.match is not None else nullcontext(Recorded()) as recorded:
            states = read_states(model, inputs)
        return recorded, states[:, :-1][asked]

    def _measure_answers(self, mine: torch.Tensor, theirs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        options, said = self.options, apply_head(self.model, mine)
        loss = said.new_zeros(())
        if options.hard_weight:
            loss = loss + options.hard_weight * nn.functional.cross_entropy(said, wanted, reduction="sum")
        if options.soft_weight:
            with torch.no_grad():
                told = self.tell(theirs)
            # Rows beyond the pieces of the tokenizer are never asked for.
            soft = measure_soft(said[:, : told.shape[1]], told, options.temperature)
            loss = loss + options.soft_weight * soft * len(said)
        return loss


def _make_head(teacher: nn.Module, ids: NDArray[np.int64] | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what gives the teacher's logits for some of its pieces, in that order; None are all."""
    shape: Any = teacher
    head = shape.get_output_embeddings()
    if ids is None:
        return partial(apply_head, teacher)
    kept = torch.from_numpy(ids)
    if type(head) is not nn.Linear:
        return lambda states: apply_head(teacher, states)[:, kept]
    weight, bias = head.weight.detach()[kept], None if head.bias is None else head.bias.detach()[kept]
    return lambda states: nn.functional.linear(states, weight, bias).float()


def _match_layers(model: nn.Module, teacher: nn.Module, options: DistilOptions) -> LayerMatch:
    pairs = pair_layers(len(_list_layers(model)), len(_list_layers(teacher)), options.layer_map)
    configs: list[Any] = [model.config, teacher.config]
    return LayerMatch(pairs, (int(configs[0].hidden_size), int(configs[1].hidden_size)), [])


def _list_layers(model: nn.Module) -> list[nn.Module]:
    return list(model.get_submodule(find_stack(model)).children())


def _check(model: nn.Module, teacher: nn.Module, options: DistilOptions, samples: Samples) -> None:
    for name in ("attention_weight", "masked_weight", "augment"):
        if getattr(options, name):
            raise UsageError(
                "a language model learns the next token: this is for encoders",
                where=f"distil.{name}",
                cure="leave it out; soft_weight and hidden_weight work",
            )
    if not predicts_next(teacher):
        raise UsageError(
            f"{type(teacher).__name__} tells no next token",
            where="--teacher",
            cure="name a causal language model",
        )
    if samples.teacher_ids is None:
        check_tokens(model, teacher)
    check_head(model)
    check_head(teacher)
