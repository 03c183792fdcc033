"""Whether a student can learn from a teacher at all, and what of the data has labels.

In: two models, samples. Out: UsageError or DataError where they do not fit. Imports torch and numpy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from compression.models.forward import predicts_tokens
from compression.samples import Samples
from runtimes.errors import DataError, UsageError

#: The label of a row that has none among rows that have; PyTorch's losses pass over it. Scores have NaN there.
UNLABELLED = -100

_SHOWN = 4


def check_labels(student: nn.Module, teacher: nn.Module) -> None:
    """Raise UsageError where the answers of one are not those of the other: their number, names and order."""
    mine, theirs = _list_labels(student), _list_labels(teacher)
    if mine is None or theirs is None or mine == theirs or predicts_tokens(student):
        return
    if len(mine) != len(theirs):
        what = f"the teacher has {len(theirs)} labels, the student {len(mine)}"
    else:
        unlike = [f"{left} and {right}" for left, right in zip(theirs, mine, strict=True) if left != right]
        what = f"the labels of teacher and student differ: {', '.join(unlike[:_SHOWN])}"
    raise UsageError(what, where="--teacher", cure="name a teacher that was trained for the same labels in that order")


def count_pieces(model: nn.Module) -> int | None:
    """Return the size of a model's vocabulary, None where it has none."""
    size = getattr(getattr(model, "config", None), "vocab_size", None)
    return None if size is None else int(size)


def check_tokens(student: nn.Module, teacher: nn.Module) -> None:
    """Raise UsageError where a token of one may be none of the other's: their vocabularies have different sizes."""
    mine, theirs = count_pieces(student), count_pieces(teacher)
    if mine != theirs and mine is not None and theirs is not None:
        raise UsageError(
            f"the teacher's vocabulary has {theirs} pieces, the student's {mine}: they do not read the same tokens",
            where="--teacher",
            cure="name a teacher with the student's tokenizer, or learn soft labels alone, each with its own tokenizer",
        )


def join_samples(train: Samples | None, unlabelled: Samples | None) -> Samples:
    """Return both as one; rows without a label have :data:`UNLABELLED` or NaN where the others have one.

    Raises:
        DataError: there are no unlabelled samples.
    """
    if unlabelled is None:
        raise DataError("there are no unlabelled samples", where="unlabelled", cure="pass --unlabelled FILE")
    if train is None:
        return unlabelled
    # Where every text is the same to both tokenizers, the rows of one set stand for its teacher's.
    both = [one.teacher_rows or one.rows for one in (train, unlabelled)]
    told = [one for one in (train, unlabelled) if one.teacher_rows is not None]
    return replace(
        train,
        rows=train.rows + unlabelled.rows,
        labels=None if train.labels is None else np.concatenate([train.labels, _fill(train.labels, len(unlabelled))]),
        teacher_rows=both[0] + both[1] if told else None,
        teacher_padding=told[0].teacher_padding if told else train.teacher_padding,
    )


def require_hard_labels(student: nn.Module, samples: Samples) -> None:
    """Raise DataError where nothing says what the right answers are."""
    if samples.labels is None and not predicts_tokens(student):
        raise DataError(
            "no row of the data has a label",
            where="distil.hard_weight",
            cure="name their column with --label-column, or learn from the teacher alone: hard_weight = 0",
        )


def find_labelled(labels: torch.Tensor) -> torch.Tensor:
    """Return bool [rows]: those that have a label."""
    return labels.isfinite() if labels.is_floating_point() else labels != UNLABELLED


def _fill(labels: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    return np.full(count, np.nan if labels.dtype.kind == "f" else UNLABELLED, labels.dtype)


def _list_labels(model: nn.Module) -> list[str] | None:
    names = getattr(getattr(model, "config", None), "id2label", None)
    return [str(names[place]) for place in sorted(names)] if names else None
