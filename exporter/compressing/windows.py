"""Samples for a language model: texts one after the other, an end behind each, cut into windows of one length.

In: the user's texts and a folder with a ``tokenizer.json``. Out: sample sets, and the ids that are no words.
Must not import torch or transformers at module level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exporter.compressing.data import Texts
from exporter.compressing.reader import find_special_tokens, require_tokenizer
from runtimes.artifact import TensorSpec
from runtimes.errors import DataError, UsageError
from runtimes.generation.cache_spec import IDS, MASK
from runtimes.serving.tokenise import Tokeniser
from runtimes.tokenizer_errors import tokenizer_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from compression.objectives.objective import SpecialTokens
    from compression.samples import Samples, SampleSets

# Texts are cut into windows, not cut off.
_NO_LIMIT = 1 << 40


def read_windows(
    texts: Mapping[str, Texts],
    length: int,
    inputs: Sequence[TensorSpec],
    end: str | None,
    teacher: Path | None,
    files: Path,
) -> tuple[SampleSets, SpecialTokens]:
    """Return windows of the texts as the tokenizer in ``files`` cuts them, and what the teacher calls its pieces.

    Args:
        texts: What the user gave, by the fields of SampleSets.
        length: Tokens in a window; the last of all may be shorter.
        inputs: What the model takes.
        end: The piece behind each text; None puts nothing there.
        teacher: The teacher's ``tokenizer.json``; None where there is none.
        files: The folder.

    Raises:
        DataError: there are texts and no tokenizer, or they hold no two tokens.
        UsageError: the teacher has not the pieces of the model.
        CorruptArtifact: a tokenizer cannot be read.
    """
    from compression.objectives.objective import SpecialTokens
    from compression.samples import SampleSets

    if not texts:
        return SampleSets(), SpecialTokens()
    path = require_tokenizer(files)
    tokeniser = Tokeniser(path, inputs, _NO_LIMIT)
    pieces = _read_pieces(path)
    told = None if teacher is None else _find_ids(pieces, _read_pieces(teacher), str(teacher))
    behind = np.array([pieces[end]] if end in pieces else [], np.int64)
    sets = {name: replace(_cut(some, tokeniser, behind, length), teacher_ids=told) for name, some in texts.items()}
    return SampleSets(**sets), replace(find_special_tokens(path), padding=tokeniser.padding_id)


def name_end(tokenizer: Path, number: int | None) -> str | None:
    """Return the piece behind every text, by the id that the model's configuration gives it."""
    return None if number is None or not tokenizer.is_file() else _open(tokenizer).id_to_token(number)


def _cut(texts: Texts, tokeniser: Tokeniser, behind: NDArray[np.int64], length: int) -> Samples:
    from compression.samples import Samples

    rows = tokeniser.tokenise(texts.rows)
    ids = np.concatenate([part for row in rows for part in (np.asarray(row[IDS], np.int64), behind)])
    windows = [ids[start : start + length] for start in range(0, len(ids), length)]
    windows = [window for window in windows if len(window) > 1]
    if not windows:
        raise DataError("there are no two tokens in the data", where=texts.where, cure="give longer texts")
    return Samples(
        rows=tuple({IDS: window, MASK: np.ones_like(window)} for window in windows),
        padding={IDS: tokeniser.padding_id},
    )


def _find_ids(pieces: Mapping[str, int], theirs: Mapping[str, int], where: str) -> NDArray[np.int64] | None:
    """Return the teacher's id of each of the model's, [pieces]; None where all are the same."""
    lacking = [piece for piece in pieces if piece not in theirs]
    if lacking:
        raise UsageError(
            f"the teacher's tokenizer has no piece {lacking[0]!r}: it cannot read what the model reads",
            where=where,
            cure="name a teacher with the model's tokenizer, or with one that it was made smaller from",
        )
    ids = np.zeros(max(pieces.values()) + 1, np.int64)
    for piece, at in pieces.items():
        ids[at] = theirs[piece]
    return None if len(pieces) == len(theirs) and np.array_equal(ids, np.arange(len(ids))) else ids


def _read_pieces(tokenizer: Path) -> dict[str, int]:
    found: dict[str, int] = _open(tokenizer).get_vocab(with_added_tokens=True)
    return found


def _open(tokenizer: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    with tokenizer_errors("not a tokenizer", str(tokenizer)):
        return Tokenizer.from_file(str(tokenizer))
