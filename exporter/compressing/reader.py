"""Samples for every step of a recipe, tokenised with the tokenizer that the model has at that step.

In: the user's texts and a folder with a ``tokenizer.json``. Out: sample sets, and the ids that are no words.
Must not import torch or transformers at module level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.compressing.data import Labels, Texts, make_samples, read_arrays
from exporter.judging.special_tokens import read_special_ids
from exporter.tracing.companions import TOKENIZER
from runtimes.artifact import TensorSpec
from runtimes.errors import DataError
from runtimes.serving.tokenise import Tokeniser

if TYPE_CHECKING:
    from compression.objectives.objective import SpecialTokens
    from compression.samples import Row, Samples, SampleSets

#: Tokenises the data with the tokenizer of a folder.
ReadSamples = Callable[[Path], "tuple[SampleSets, SpecialTokens]"]

#: The three kinds of data a recipe can use, as the fields of SampleSets are called.
TRAIN, HELD_OUT, UNLABELLED = "train", "held_out", "unlabelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the teacher reads texts: its ``tokenizer.json``, and what it takes."""

    tokenizer: Path
    inputs: tuple[TensorSpec, ...]


def read_texts_again(
    texts: Mapping[str, Texts],
    max_length: int,
    inputs: Sequence[TensorSpec],
    labels: Labels,
    teacher: Reading | None,
    files: Path,
) -> tuple[SampleSets, SpecialTokens]:
    """Return the samples as the tokenizer in ``files`` cuts them, and as the teacher's does where that differs.

    Args:
        texts: What the user gave, by TRAIN, HELD_OUT and UNLABELLED.
        max_length: Tokens kept of a text.
        inputs: What the model takes.
        labels: What the labels are.
        teacher: How the teacher reads texts; None where there is none, or it has no tokenizer.
        files: The folder.

    Raises:
        DataError: there are texts and no tokenizer, or a label is none of the model's.
        CorruptArtifact: the tokenizer cannot be read.
    """
    from compression.objectives.objective import SpecialTokens
    from compression.samples import SampleSets

    if not texts:
        return SampleSets(), SpecialTokens()
    path = require_tokenizer(files)
    tokeniser = Tokeniser(path, inputs, max_length)
    told = None if teacher is None else Tokeniser(teacher.tokenizer, teacher.inputs, max_length)
    sets = {name: _tokenise(some, tokeniser, told, labels) for name, some in texts.items()}
    return SampleSets(**sets), replace(find_special_tokens(path), padding=tokeniser.padding_id)


def read_arrays_once(
    files: Mapping[str, Path], inputs: Sequence[TensorSpec], label: str | None
) -> tuple[SampleSets, SpecialTokens]:
    """Return the samples of ``.npz`` files, by TRAIN, HELD_OUT and UNLABELLED. Raises as :func:`read_arrays`."""
    from compression.objectives.objective import SpecialTokens
    from compression.samples import SampleSets

    sets = {name: read_arrays(path, inputs, None if name == UNLABELLED else label) for name, path in files.items()}
    return SampleSets(**sets), SpecialTokens()


def require_tokenizer(files: Path) -> Path:
    """Return the ``tokenizer.json`` of a folder.

    Raises:
        DataError: there is none.
    """
    path = files / TOKENIZER
    if not path.is_file():
        raise DataError("texts need a tokenizer, and the model has none", cure="add a tokenizer.json to the model")
    return path


def find_special_tokens(tokenizer: Path) -> SpecialTokens:
    """Return the ids of a ``tokenizer.json`` that are no words."""
    from compression.objectives.objective import SpecialTokens

    found = read_special_ids(tokenizer)
    return SpecialTokens(mask=found.mask, every=found.every)


def _tokenise(texts: Texts, tokeniser: Tokeniser, teacher: Tokeniser | None, labels: Labels) -> Samples:
    samples = make_samples(texts, tokeniser, labels)
    if teacher is None or teacher.identity == tokeniser.identity:
        return samples
    told = tuple(teacher.tokenise(texts.rows))
    if all(map(_are_equal, samples.rows, told)):
        return samples
    return replace(samples, teacher_rows=told, teacher_padding={"input_ids": teacher.padding_id})


def _are_equal(left: Row, right: Row) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)
