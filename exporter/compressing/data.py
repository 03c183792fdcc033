"""The user's texts and labels for compression: files in, plain :class:`Samples` out.

In: paths, columns, a ``tokenizer.json`` and what the model takes. Out: samples.
Must not import torch or transformers at module level; the samples are arrays of numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.read_tensors import check_arrays, load_npz
from calibration.read_texts import TEXT_SUFFIXES, read_rows
from exporter.judging.evaluate import read_class
from runtimes.artifact import TensorSpec
from runtimes.errors import DataError
from runtimes.serving.tokenise import Tokeniser

if TYPE_CHECKING:
    from compression.samples import Samples


#: The column or array with the label, where the user names none.
DEFAULT_LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What the labels of the data are: ``names`` of the classes in order, or scores where there are none."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Rows of one file: a text or a pair each, and its label as it stood there; ``where`` names file and column."""

    rows: tuple[tuple[str, ...], ...]
    labels: tuple[object, ...] | None
    where: str


def read_texts(path: Path, columns: Sequence[str], label: str | None) -> Texts:
    """Read every row of a text file, with its label where ``label`` names a column.

    Raises:
        DataError: the file cannot be used, or holds no text.
    """
    if path.suffix not in TEXT_SUFFIXES:
        kinds = ", ".join(TEXT_SUFFIXES)
        raise DataError("not a kind of data file that is known", where=str(path), cure=f"give {kinds}")
    rows = list(read_rows(path, columns=columns, label=label))
    if not rows:
        raise DataError("there is no text in the data", where=str(path), cure="give at least one line of text")
    labels = tuple(row.label for row in rows) if label else None
    return Texts(rows=tuple(row.texts for row in rows), labels=labels, where=f"{path}:{label}" if label else str(path))


def find_labels(texts: Texts) -> Labels:
    """Return what the labels of ``texts`` are: classes by name, or scores where one is a number with a fraction.

    Raises:
        DataError: there are no labels, or all are alike.
    """
    found = {str(label) for label in texts.labels or ()}
    if any(_is_fraction(word) for word in found) and all(_is_number(word) for word in found):
        return Labels()
    if len(found) < 2:
        known = f"every label is {next(iter(found))!r}" if found else "the data has no labels"
        raise DataError(f"{known}: there is nothing to learn", where=texts.where, cure="name another --label-column")
    numbers = all(word.isdecimal() for word in found)
    return Labels(names=tuple(sorted(found, key=int) if numbers else sorted(found)))


def make_samples(texts: Texts, tokeniser: Tokeniser, labels: Labels) -> Samples:
    """Return the tokens of every text, and its label as a class or a score.

    Raises:
        DataError: a label is none of the model's, or no number.
    """
    from compression.samples import Samples

    return Samples(
        rows=tuple(tokeniser.tokenise(texts.rows)),
        labels=None if texts.labels is None else _read_labels(texts.labels, labels, texts.where),
        padding={"input_ids": tokeniser.padding_id},
    )


def read_arrays(path: Path, inputs: Sequence[TensorSpec], label: str | None) -> Samples:
    """Return the samples of an ``.npz`` file: arrays by input name, first axis samples; labels if there.

    Labels that are whole numbers are classes, others scores. ``label`` is ``label`` where it is None.

    Raises:
        DataError: the file cannot be used, lacks an array, or has another number of labels.
    """
    from compression.samples import Samples

    arrays = load_npz(path)
    if label is not None and label not in arrays:
        found = ", ".join(sorted(arrays))
        raise DataError(f"no array {label!r}; the arrays are {found}", where=str(path), cure="name one of these")
    labels = arrays.pop(label or DEFAULT_LABEL, None)
    if labels is not None:
        labels = labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)
    checked = check_arrays(arrays, inputs, str(path))
    count = len(next(iter(checked.values())))
    if labels is not None and len(labels) != count:
        cure = "give every sample a label"
        raise DataError(f"{len(labels)} labels for {count} samples", where=str(path), cure=cure)
    return Samples(
        rows=tuple({name: array[row] for name, array in checked.items()} for row in range(count)), labels=labels
    )


def _read_labels(given: Sequence[object], labels: Labels, where: str) -> NDArray[np.int64] | NDArray[np.float32]:
    if labels.names:
        return np.array([read_class(label, labels.names, len(labels.names), where) for label in given], np.int64)
    if not all(_is_number(str(label)) for label in given):
        wrong = next(label for label in given if not _is_number(str(label)))
        raise DataError(f"{wrong!r} is not a number", where=where, cure="name the column with the score")
    return np.array([float(str(label)) for label in given], np.float32)


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def _is_fraction(word: str) -> bool:
    return _is_number(word) and not word.removeprefix("-").isdecimal()
