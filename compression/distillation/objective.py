"""What a student learns from its teacher: softened answers, hidden states and attention; and from hidden tokens.

In: a student, a teacher, samples and options. Out: an :class:`Objective` for the training loop. Imports torch.

Soft labels: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv:1503.02531). The teacher's
answer counts for rows without a label, and for changed rows, as well: Tang et al. 2019 (arXiv:1903.12136).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from compression.distillation.augment import AugmentOptions
from compression.distillation.layer_matching import LayerMatch
from compression.distillation.questions import Question, make_questioner
from compression.distillation.teaching import UNLABELLED, check_labels, check_tokens, find_labelled, require_hard_labels
from compression.models.forward import predicts_tokens, read_states, run_model
from compression.models.record_layers import Recorded, record_layers
from compression.objectives.masked_head import MaskedHead, read_table
from compression.objectives.objective import Objective, SpecialTokens, mask_tokens, measure_loss
from compression.objectives.precision import compute_in
from compression.options import OptionError
from compression.samples import Batch, Samples, read_batches
from runtimes.errors import UsageError

_READ_BATCH = 64
_WEIGHTS = ("hard_weight", "soft_weight", "hidden_weight", "attention_weight", "masked_weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilOptions:
    """What is learned, each with its weight in the sum; the sub-table ``distil`` of a training.

    Attributes:
        hard_weight: The task's own loss, over the rows that have a label.
        soft_weight: Divergence from the teacher's answers, both softened by ``temperature``, times its square.
        hidden_weight: Distance of the hidden states, as a share of the teacher's.
        attention_weight: Divergence of the attention probabilities.
        masked_weight: Predicting hidden tokens, which needs neither labels nor a teacher.
        temperature: 1 or more; the higher, the more the teacher's wrong classes tell.
        layer_map: The teacher's layer for each of the student's, from 0; empty spreads them evenly.
        augment: Changes to the rows; None learns them as they are.
    """

    hard_weight: float = 0.5
    soft_weight: float = 0.5
    hidden_weight: float = 0.0
    attention_weight: float = 0.0
    masked_weight: float = 0.0
    temperature: float = 2.0
    layer_map: tuple[int, ...] = ()
    augment: AugmentOptions | None = None

    def __post_init__(self) -> None:
        """Refuse negative weights, nothing to learn, and temperatures below 1."""
        for name in _WEIGHTS:
            if getattr(self, name) < 0:
                raise OptionError(name, f"{getattr(self, name)} is below 0", "give 0 or more")
        if not any(getattr(self, name) for name in _WEIGHTS):
            raise OptionError("soft_weight", "every weight is 0: nothing would be learned", "give one above 0")
        if self.temperature < 1:
            raise OptionError("temperature", f"{self.temperature} is below 1", "give 1 or more, such as 2")

    @property
    def matches_layers(self) -> bool:
        """Whether the teacher's layers are looked at."""
        return bool(self.hidden_weight or self.attention_weight)


def make_objective(
    model: nn.Module, teacher: nn.Module, options: DistilOptions, samples: Samples, tokens: SpecialTokens, seed: int
) -> Objective:
    """Return the sum of what ``options`` asks for; projections and the auxiliary head learn beside the model.

    Args:
        model: The student.
        teacher: Stays as it is.
        options: What is learned.
        samples: What the batches will be made of.
        tokens: Ids that are never hidden or exchanged.
        seed: Of the first values of projections and head.

    Raises:
        UsageError: teacher and student have different labels or vocabularies, or what is asked for cannot be had.
        DataError: no row has a label, and ``hard_weight`` asks for them.
    """
    _check(model, teacher, options, samples, tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match = LayerMatch.for_models(model, teacher, options.layer_map) if options.matches_layers else None
        head = MaskedHead.for_model(model) if options.masked_weight else None
    teacher.eval()
    distillation = _Distillation(
        model=model,
        options=options,
        tokens=tokens,
        ask=_Asker(teacher, options, samples, model),
        question=make_questioner(model, options.augment, samples, tokens),
        match=match,
        head=head,
    )
    beside = {"match": match, "masked_head": head}
    modules = {name: it for name, it in beside.items() if it is not None and next(it.parameters(), None) is not None}
    return Objective(loss=distillation.measure, modules=modules)


def measure_soft(said: torch.Tensor, told: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean divergence of a student's answers from a teacher's (Hinton et al., section 2), in nats.

    Args:
        said: The student's logits, float [rows, classes]; with one class they are scores, whose error is squared.
        told: The teacher's.
        temperature: What both are divided by; the loss is multiplied by its square, so that gradients keep their size.
    """
    if said.shape[-1] == 1:
        return nn.functional.mse_loss(said, told)
    mine, theirs = ((logits / temperature).log_softmax(dim=-1) for logits in (said, told))
    return (theirs.exp() * (theirs - mine)).sum(dim=-1).mean() * temperature**2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Distillation:
    """The loss of a batch, with all that it needs."""

    model: nn.Module
    options: DistilOptions
    tokens: SpecialTokens
    ask: _Asker
    question: Callable[[Batch], Question]
    match: LayerMatch | None
    head: MaskedHead | None

    def measure(self, batch: Batch) -> torch.Tensor:
        """Return the weighted sum of the losses."""
        options, question = self.options, self.question(batch)
        with record_layers(self.model) if self.match is not None else nullcontext() as mine:
            said = run_model(self.model, question.inputs)
        parts = [options.hard_weight * _measure_hard(said, question.labels)] if options.hard_weight else []
        if options.soft_weight or self.match is not None:
            told, theirs = self.ask(question)
            if options.soft_weight:
                soft = measure_soft(question.pick(said), question.pick(told), options.temperature)
                parts.append(options.soft_weight * soft)
            if self.match is not None and mine is not None and theirs is not None:
                parts += self._measure_layers(self.match, mine, theirs, question.find_tokens())
        if self.head is not None:
            parts.append(options.masked_weight * self._measure_masked(self.head, batch))
        return torch.stack(parts).sum()

    def _measure_layers(
        self, match: LayerMatch, mine: Recorded, theirs: Recorded, tokens: torch.Tensor
    ) -> list[torch.Tensor]:
        options, parts = self.options, []
        with compute_in("fp32"):
            if options.hidden_weight:
                parts.append(options.hidden_weight * match.measure_hidden(mine, theirs, tokens))
            if options.attention_weight:
                parts.append(options.attention_weight * match.measure_attention(mine, theirs, tokens))
        return parts

    def _measure_masked(self, head: MaskedHead, batch: Batch) -> torch.Tensor:
        table = read_table(self.model)
        read, expected = mask_tokens(batch.inputs["input_ids"], self.tokens, len(table))
        asked = expected != UNLABELLED
        states = read_states(self.model, {**batch.inputs, "input_ids": read})[asked]
        if not len(states):
            return states.sum()  # a mean over nothing is no number
        return nn.functional.cross_entropy(head(states, table), expected[asked])


class _Asker:
    """Gets the teacher's answers: computed once for every sample where they do not change."""

    def __init__(self, teacher: nn.Module, options: DistilOptions, samples: Samples, model: nn.Module) -> None:
        self._teacher, self._records = teacher, options.matches_layers
        fixed = options.augment is None and not self._records and not predicts_tokens(model)
        # In one order whatever was trained before: a sum in another batch may differ in its last bit, and a resumed
        # training must not.
        self._answers = self._answer_all(samples) if fixed and options.soft_weight else None

    @torch.no_grad()
    def __call__(self, question: Question) -> tuple[torch.Tensor, Recorded | None]:
        """Return the teacher's logits, and what its layers did where that is matched."""
        if self._answers is not None:
            return self._answers[list(question.indices)], None
        with record_layers(self._teacher) if self._records else nullcontext() as theirs:
            told = run_model(self._teacher, question.teacher_inputs)
        return told, theirs

    @torch.no_grad()
    def _answer_all(self, samples: Samples) -> torch.Tensor | None:
        """Return [samples, classes], or None where each token has an answer, which would take too much memory."""
        answers: torch.Tensor | None = None
        for batch in read_batches(samples, _READ_BATCH):
            told = run_model(self._teacher, batch.teacher_inputs)
            if told.dim() != 2:
                return None
            if answers is None:
                answers = told.new_empty(len(samples), told.shape[1])
            answers[list(batch.indices)] = told
        return answers


def _measure_hard(said: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    assert labels is not None
    known = find_labelled(labels)
    if not bool(known.any()):
        return said.sum() * 0.0  # a mean over nothing is no number
    return measure_loss(said[known], labels[known])


def _check(
    model: nn.Module, teacher: nn.Module, options: DistilOptions, samples: Samples, tokens: SpecialTokens
) -> None:
    check_labels(model, teacher)
    if options.hard_weight:
        require_hard_labels(model, samples)
    if samples.teacher_rows is None:
        check_tokens(model, teacher)
    elif options.matches_layers or options.augment or predicts_tokens(model):
        raise UsageError(
            "teacher and student have different tokenizers, so that only the answers for whole texts can be learned",
            where="distil",
            cure="leave out augment, hidden_weight and attention_weight",
        )
    if options.soft_weight and getattr(model, "base_model", None) is model:
        raise UsageError(
            "an encoder without a head has no answers to soften",
            where="distil.soft_weight",
            cure="soft_weight = 0, and hidden_weight = 1 for its hidden states",
        )
    if tokens.mask is None and ((options.augment and options.augment.mask) or options.masked_weight):
        raise UsageError(
            "the tokenizer has no mask token to hide tokens behind",
            where="distil.masked_weight" if options.masked_weight else "distil.augment.mask",
            cure="masked_weight = 0, augment = {mask = 0}",
        )
