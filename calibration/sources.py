"""Where samples come from: texts, tensors in an ``.npz``, or a callable that yields feeds.

In: what :mod:`calibration.data` found behind a specification. Out: a :class:`Source`, which knows the identity of every
sample and cuts samples into batches. Must not import a runtime, torch or transformers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.read_tensors import check_arrays, refuse_nonfinite
from runtimes.artifact import TensorSpec
from runtimes.errors import DataError
from runtimes.serving.tokenise import Feeds, Tokeniser, count_tokens

#: Texts are sorted by length inside windows of this many, so that a batch holds texts of about one length and little
#: padding is computed; a window bounds what must be tokenised before the first batch.
WINDOW = 512


class Source(Protocol):
    """Samples that can be told apart and read in batches."""

    identity: str
    """What besides the samples decides the feeds: tokenizer, length, input names."""

    def digests(self, limit: int | None) -> list[bytes]:
        """Return one digest a sample, of the first ``limit``; equal samples have equal digests."""
        ...

    def read(self, indices: Sequence[int], batch_size: int) -> Iterator[tuple[tuple[int, ...], Feeds]]:
        """Yield (sample indices, feeds) batch by batch; the same arguments give the same batches."""
        ...


def count_samples(feeds: Feeds) -> int:
    """Return how many samples a batch has: the first axis of its arrays; 1 where all are single numbers."""
    return next((len(array) for array in feeds.values() if array.ndim), 1)


def hash_texts(texts: tuple[str, ...]) -> bytes:
    """Return a 16-byte digest of a text or pair."""
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


class TextSource:
    """Texts through a tokeniser. Memory: the texts, and the tokens of one window."""

    def __init__(self, texts: Sequence[tuple[str, ...]], tokeniser: Tokeniser) -> None:
        self._texts, self._tokeniser = texts, tokeniser
        self.identity = tokeniser.identity

    def take(self, place: int) -> TextSource:
        """Return the source of one text of each pair."""
        return TextSource([(texts[place],) for texts in self._texts], self._tokeniser)

    def digests(self, limit: int | None) -> list[bytes]:
        """See :class:`Source`."""
        return [hash_texts(texts) for texts in self._texts[:limit]]

    def read(self, indices: Sequence[int], batch_size: int) -> Iterator[tuple[tuple[int, ...], Feeds]]:
        """See :class:`Source`; batches are of about equal length, shortest first in each window."""
        for start in range(0, len(indices), WINDOW):
            window = indices[start : start + WINDOW]
            rows = self._tokeniser.tokenise([self._texts[index] for index in window])
            order = sorted(range(len(window)), key=lambda place: (count_tokens(rows[place]), place))
            for first in range(0, len(order), batch_size):
                places = order[first : first + batch_size]
                feeds = self._tokeniser.stack_tokens([rows[place] for place in places])
                yield tuple(window[place] for place in places), feeds


class TensorSource:
    """Arrays whose first axis counts the samples."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = arrays
        self._count = len(next(iter(arrays.values())))
        self.identity = str(sorted(arrays))

    def digests(self, limit: int | None) -> list[bytes]:
        """See :class:`Source`."""
        samples = range(self._count)[:limit]
        return [_hash_feeds({name: array[i] for name, array in self._arrays.items()}) for i in samples]

    def read(self, indices: Sequence[int], batch_size: int) -> Iterator[tuple[tuple[int, ...], Feeds]]:
        """See :class:`Source`; samples stay in order."""
        for first in range(0, len(indices), batch_size):
            chosen = tuple(indices[first : first + batch_size])
            yield chosen, {name: np.ascontiguousarray(array[list(chosen)]) for name, array in self._arrays.items()}


class CallableSource:
    """A callable that yields feeds. One yield is one sample here, whatever its batch axis, and is fed as it is.

    The callable is called again for every pass, so that nothing has to be kept: it must yield the same each time.
    """

    def __init__(self, produce: Callable[[], Iterable[Any]], inputs: Sequence[TensorSpec], where: str) -> None:
        self._produce, self._inputs, self._where = produce, inputs, where
        self.identity = where

    def _iterate(self) -> Iterator[Feeds]:
        produced = self._produce()
        if not isinstance(produced, Iterable):
            raise DataError("the callable did not return an iterable of feeds", where=self._where, cure="yield dicts")
        for number, feeds in enumerate(produced):
            where = f"{self._where}, item {number}"
            if not isinstance(feeds, Mapping):
                cure = "yield a dict from input name to array"
                raise DataError(f"{type(feeds).__name__} in place of feeds", where=where, cure=cure)
            checked = check_arrays({name: np.asarray(array) for name, array in feeds.items()}, self._inputs, where)
            for spec in self._inputs:
                refuse_nonfinite(spec.name, checked[spec.name], where)
            yield checked

    def digests(self, limit: int | None) -> list[bytes]:
        """See :class:`Source`; walks the callable's items once."""
        return [_hash_feeds(feeds) for feeds in islice(self._iterate(), limit)]

    def read(self, indices: Sequence[int], batch_size: int) -> Iterator[tuple[tuple[int, ...], Feeds]]:  # noqa: ARG002
        """See :class:`Source`; an item is a batch, so ``batch_size`` does not apply."""
        wanted = set(indices)
        for number, feeds in enumerate(islice(self._iterate(), max(wanted, default=-1) + 1)):
            if number in wanted:
                yield (number,), feeds


def _hash_feeds(feeds: Mapping[str, NDArray[Any]]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(feeds):
        digest.update(f"{name}:{feeds[name].dtype}:{feeds[name].shape};".encode())
        digest.update(np.ascontiguousarray(feeds[name]).tobytes())
    return digest.digest()
