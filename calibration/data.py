"""Calibration and evaluation data: a specification in, a deterministic :class:`Dataset` of feeds out.

The rules, so that any two runs see the same batches:

- **Which samples.** Texts are taken once each (duplicates count once) and ordered by a hash of their content, and
  ``limit`` keeps the first ones of that order: a uniform sample that depends neither on the order of the lines nor on
  how the file is read. The file is streamed and only the kept texts are held; rows after the first
  ``SCANNED_ROWS`` are not looked at. Tensors and callables keep their order, and ``limit`` keeps the first ones.
- **Which batches.** In windows of ``sources.WINDOW`` samples, sorted by token length inside a window, so that batch
  ``k`` holds the same samples whoever reads it. A shard ``(i, n)`` reads the batches with ``k % n == i``.

Must not import torch or transformers.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from calibration.read_tensors import check_arrays, load_callable, load_npz, refuse_nonfinite
from calibration.read_texts import TEXT_SUFFIXES, Row, read_rows
from calibration.sources import CallableSource, Source, TensorSource, TextSource, count_samples, hash_texts
from runtimes.artifact import TensorSpec
from runtimes.errors import DataError
from runtimes.serving.tokenise import Feeds, Tokeniser

#: Rows looked at in a text file. A sample of 256 out of the first million is as good as one of ten million, and takes
#: seconds to draw in place of minutes.
SCANNED_ROWS = 1_000_000
DEFAULT_BATCH_SIZE = 8
Shard = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Samples of a source, by index; cheap to split and to subset."""

    source: Source
    digests: tuple[bytes, ...]
    indices: tuple[int, ...]
    fixed_batch: int | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def identity(self) -> str:
        """Return a hexadecimal sha256 of the samples, their order, and what turns them into feeds."""
        digest = hashlib.sha256(self.source.identity.encode())
        for index in self.indices:
            digest.update(self.digests[index])
        return digest.hexdigest()

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the samples at these positions of this dataset."""
        return type(self)(
            source=self.source,
            digests=self.digests,
            indices=tuple(self.indices[index] for index in indices),
            fixed_batch=self.fixed_batch,
        )

    def split(self, held_out: int) -> tuple[Self, Self]:
        """Return (calibration part, held-out part of about ``held_out`` samples), the same for the same samples.

        Equal samples go to one side together, so the held-out part may be larger by the duplicates of its last one.

        Raises:
            DataError: too few different samples to leave one on either side.
        """
        groups: dict[bytes, list[int]] = {}
        for position, index in enumerate(self.indices):
            groups.setdefault(self.digests[index], []).append(position)
        if not 1 <= held_out < len(groups):
            raise DataError(
                f"{len(groups)} different samples cannot be split with {held_out} held out",
                cure=f"give at least {max(held_out, 1) + 1} different samples, or hold out fewer (at least 1)",
            )
        held: list[int] = []
        for key in sorted(groups):
            held += groups[key]
            if len(held) >= held_out:
                break
        chosen = set(held)
        kept = [position for position in range(len(self)) if position not in chosen]
        if not kept:
            raise DataError("all samples but the held-out ones are duplicates of these", cure="give more samples")
        return self.subset(kept), self.subset(sorted(held))

    def sides(self) -> tuple[Self, Self]:
        """Return the first texts of pairs and the second ones, both with every sample, blank ones too.

        Raises:
            DataError: the samples are no texts.
        """
        source = self.source
        if not isinstance(source, TextSource):
            raise DataError("the samples are no pairs of texts", cure="give .jsonl, .csv or .parquet")
        return replace(self, source=source.take(0)), replace(self, source=source.take(1))

    def batches(
        self, *, batch_size: int = DEFAULT_BATCH_SIZE, shard: Shard = (0, 1), indices: Sequence[int] | None = None
    ) -> Iterator[Feeds]:
        """Yield the feeds of this shard's batches; ``indices`` restricts to these positions.

        A model with a fixed batch axis gets batches of exactly that size, the last one filled up with its own samples.

        Raises:
            DataError: a shard that does not exist.
        """
        for _, feeds in self.numbered_batches(batch_size=batch_size, shard=shard, indices=indices):
            yield feeds

    def numbered_batches(
        self, *, batch_size: int = DEFAULT_BATCH_SIZE, shard: Shard = (0, 1), indices: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Feeds]]:
        """Yield (batch number ``k`` in the unsharded run, feeds); see :meth:`batches`."""
        part, parts = shard
        if not 0 <= part < parts:
            raise DataError(f"there is no shard {part} of {parts}", cure="count shards from 0: 0/4, 1/4, 2/4, 3/4")
        chosen = self if indices is None else self.subset(indices)
        for number, (_, feeds) in enumerate(chosen.read(batch_size)):
            if number % parts == part:
                yield number, feeds

    def read(self, batch_size: int) -> Iterator[tuple[tuple[int, ...], Feeds]]:
        """Yield (source indices of the samples, feeds) for every batch."""
        for indices, feeds in self.source.read(self.indices, self.fixed_batch or batch_size):
            yield indices, _fill_batch(feeds, self.fixed_batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledDataset:
    """A dataset in file order, duplicates kept, with the label of every sample as it stood in the file."""

    dataset: Dataset
    labels: tuple[object, ...]

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, *, batch_size: int = DEFAULT_BATCH_SIZE) -> Iterator[tuple[Feeds, tuple[object, ...]]]:
        """Yield (feeds, labels of its samples). With a fixed batch axis, rows past the labels are filling."""
        for indices, feeds in self.dataset.read(batch_size):
            yield feeds, tuple(self.labels[index] for index in indices)


def open_dataset(
    spec: str,
    inputs: Sequence[TensorSpec],
    tokenizer: Path | None,
    *,
    columns: Sequence[str] = (),
    max_length: int = 128,
    limit: int | None = None,
) -> Dataset:
    """Open calibration data for a model that takes ``inputs``.

    Args:
        spec: ``.txt`` (a text a line), ``.jsonl``, ``.csv``, ``.parquet`` (text columns), ``.npz`` (arrays by input
            name, first axis samples), or ``module:callable`` yielding dicts of arrays.
        inputs: The model's inputs.
        tokenizer: A ``tokenizer.json``; needed for texts.
        columns: One text column or two; empty to find them by name.
        max_length: Tokens kept of a text.
        limit: Samples kept; None for all.

    Raises:
        DataError: the data cannot be used; the message says which file, line, column or array.
        MissingDependency: a reader's package is missing.
    """
    if limit is not None and limit < 1:
        raise DataError(f"a limit of {limit} samples", cure="ask for at least one")
    path = Path(spec)
    if path.suffix in TEXT_SUFFIXES:
        texts = _choose_texts(path, read_rows(path, columns=columns), limit)
        return _make_dataset(TextSource(texts, _open_tokeniser(tokenizer, inputs, max_length, spec)), inputs, None)
    if path.suffix == ".npz":
        return _make_dataset(TensorSource(_load_arrays(path, inputs)), inputs, limit)
    if ":" in spec:
        # A callable yields whole batches in the model's own shape: nothing to fill.
        source = CallableSource(load_callable(spec), inputs, spec)
        return _make_dataset(source, (), limit)
    kinds = ", ".join((*TEXT_SUFFIXES, ".npz"))
    raise DataError("not a kind of data file that is known", where=spec, cure=f"give {kinds} or module:callable")


def open_labelled(
    spec: str,
    label_column: str,
    inputs: Sequence[TensorSpec],
    tokenizer: Path | None,
    *,
    columns: Sequence[str] = (),
    max_length: int = 128,
    limit: int | None = None,
) -> LabelledDataset:
    """Open evaluation data: as :func:`open_dataset`, with a label a sample, in file order, duplicates kept.

    ``label_column`` is a column of ``.jsonl``, ``.csv`` or ``.parquet``, or an array of the ``.npz``; ``limit`` keeps
    the first rows.

    Raises:
        DataError: the data cannot be used, or has no such label.
    """
    path = Path(spec)
    if path.suffix in TEXT_SUFFIXES:
        tokeniser = _open_tokeniser(tokenizer, inputs, max_length, spec)
        rows: list[Row] = []
        for row in read_rows(path, columns=columns, label=label_column):
            if limit is not None and len(rows) == limit:
                break
            rows.append(row)
        if not rows:
            raise DataError("there is no text in the data", where=spec, cure="give at least one line of text")
        dataset = _make_dataset(TextSource([row.texts for row in rows], tokeniser), inputs, None)
        return LabelledDataset(dataset=dataset, labels=tuple(row.label for row in rows))
    if path.suffix == ".npz":
        arrays = load_npz(path)
        if label_column not in arrays:
            found = ", ".join(sorted(arrays))
            raise DataError(f"no array {label_column!r}; the arrays are {found}", where=spec, cure="name one of these")
        labels = arrays.pop(label_column)
        dataset = _make_dataset(TensorSource(_check_finite(arrays, inputs, path)), inputs, limit)
        if len(labels) != len(dataset.digests):
            cure = "give every sample a label"
            raise DataError(f"{len(labels)} labels for {len(dataset.digests)} samples", where=spec, cure=cure)
        return LabelledDataset(dataset=dataset, labels=tuple(labels.tolist()))
    kinds = ".jsonl, .csv, .parquet or .npz"
    raise DataError("not a kind of labelled data that is known", where=spec, cure=f"give {kinds}")


def _choose_texts(path: Path, rows: Iterator[Row], limit: int | None) -> list[tuple[str, ...]]:
    """Return the ``limit`` different texts with the smallest digests, in the order of these."""
    chosen: dict[bytes, tuple[str, ...]] = {}
    largest: list[bytes] = []  # a heap of the chosen digests, inverted so that the largest comes first
    for number, row in enumerate(rows):
        if number == SCANNED_ROWS:
            if limit is None:
                cure = "keep fewer with a limit"
                raise DataError(f"more than {SCANNED_ROWS:,} rows to hold in memory", where=str(path), cure=cure)
            break
        key = hash_texts(row.texts)
        if key in chosen:
            continue
        if limit is not None and len(chosen) == limit:
            last = _invert(largest[0])
            if key > last:
                continue
            heapq.heappop(largest)
            del chosen[last]
        chosen[key] = row.texts
        heapq.heappush(largest, _invert(key))
    if not chosen:
        raise DataError("there is no text in the data", where=str(path), cure="give at least one line of text")
    return [chosen[key] for key in sorted(chosen)]


def _invert(key: bytes) -> bytes:
    """Return a key that sorts the other way round."""
    return bytes(255 - byte for byte in key)


def _open_tokeniser(tokenizer: Path | None, inputs: Sequence[TensorSpec], max_length: int, spec: str) -> Tokeniser:
    if tokenizer is None:
        cure = "give .npz or module:callable, or a model that comes with its tokenizer.json"
        raise DataError("texts need a tokenizer, and the model has none", where=spec, cure=cure)
    return Tokeniser(tokenizer, inputs, max_length)


def _load_arrays(path: Path, inputs: Sequence[TensorSpec]) -> Feeds:
    return _check_finite(load_npz(path), inputs, path)


def _check_finite(arrays: Feeds, inputs: Sequence[TensorSpec], path: Path) -> Feeds:
    checked = check_arrays(arrays, inputs, str(path))
    for name, array in checked.items():
        refuse_nonfinite(name, array, str(path))
    return checked


def _make_dataset(source: Source, inputs: Sequence[TensorSpec], limit: int | None) -> Dataset:
    digests = tuple(source.digests(limit))
    if not digests:
        raise DataError("there is no sample in the data", where=source.identity, cure="give at least one")
    fixed = {spec.shape[0] for spec in inputs if spec.shape and isinstance(spec.shape[0], int)}
    return Dataset(
        source=source,
        digests=digests,
        indices=tuple(range(len(digests))),
        fixed_batch=int(min(fixed)) if fixed else None,
    )


def _fill_batch(feeds: Feeds, size: int | None) -> Feeds:
    """Repeat a short batch's samples until it has ``size`` of them."""
    count = count_samples(feeds)
    if size is None or count == size:
        return feeds
    rows = [row % count for row in range(size)]
    return {name: array[rows] for name, array in feeds.items()}
