"""What teacher and student are asked: a batch as it is, with tokens hidden to be predicted, or with changed rows.

In: batches. Out: questions. Random draws are from torch's own generator. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from compression.distillation.augment import AugmentOptions, augment, count_tokens, find_changeable
from compression.distillation.teaching import UNLABELLED, count_pieces, find_labelled
from compression.models.forward import predicts_tokens
from compression.objectives.objective import SpecialTokens, mask_tokens
from compression.samples import Batch, Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A batch as both models read it.

    Attributes:
        inputs: What the student takes.
        teacher_inputs: What the teacher takes.
        labels: [rows], or [rows, tokens] where tokens are predicted; UNLABELLED or NaN where there is none.
        indices: Of the samples.
    """

    inputs: dict[str, torch.Tensor]
    teacher_inputs: dict[str, torch.Tensor]
    labels: torch.Tensor | None
    indices: tuple[int, ...]

    def find_tokens(self) -> torch.Tensor:
        """Return bool [rows, tokens]: those that are no padding."""
        mask = self.inputs.get("attention_mask")
        return torch.ones_like(self.inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool()

    def pick(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits that count, float [rows, classes]: of tokens, those that are asked for or no padding."""
        if logits.dim() == 2:
            return logits
        asked = self.labels is not None and self.labels.dim() == 2
        return logits[find_labelled(self.labels) if asked and self.labels is not None else self.find_tokens()]


def make_questioner(
    model: nn.Module, changes: AugmentOptions | None, samples: Samples, tokens: SpecialTokens
) -> Callable[[Batch], Question]:
    """Return what turns a batch into a question: as it is, with hidden tokens to predict, or with changed rows."""
    vocabulary = count_pieces(model) or 0

    def keep(batch: Batch) -> Question:
        return Question(
            inputs=batch.inputs, teacher_inputs=batch.teacher_inputs, labels=batch.labels, indices=batch.indices
        )

    def hide(batch: Batch) -> Question:
        read, expected = mask_tokens(batch.inputs["input_ids"], tokens, vocabulary)
        inputs = {**batch.inputs, "input_ids": read}
        return replace(keep(batch), inputs=inputs, teacher_inputs=inputs, labels=expected)

    if predicts_tokens(model):
        return hide
    if changes is None:
        return keep
    mask_id = tokens.mask or 0
    special = {tokens.padding, *tokens.every}
    rows = (torch.from_numpy(row["input_ids"]).long() for row in samples.rows)
    frequencies = count_tokens(rows, vocabulary, special)

    def change(batch: Batch) -> Question:
        ids = batch.inputs["input_ids"]
        changeable = find_changeable(ids, batch.inputs.get("attention_mask"), special)
        read, changed = augment(ids, changeable, changes, mask_id=mask_id, frequencies=frequencies)
        inputs = {**batch.inputs, "input_ids": read}
        labels = None if batch.labels is None else batch.labels.masked_fill(changed, _no_label(batch.labels))
        return replace(keep(batch), inputs=inputs, teacher_inputs=inputs, labels=labels)

    return change


def _no_label(labels: torch.Tensor) -> float:
    return float("nan") if labels.is_floating_point() else UNLABELLED
