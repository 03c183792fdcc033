"""The tokenizer files of a checkpoint, read and written anew with fewer pieces.

In: a folder with ``tokenizer.json``. Out: the same folder, its ids renumbered. Imports nothing that is heavy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compression.words.vocabulary import shrink_tokenizer
from runtimes.atomic import write_text
from runtimes.errors import UnsupportedModel

_TOKENIZER, _SETTINGS, _GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
# What tokenizer.json was made from: it would bring the old vocabulary back.
_SOURCES = ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "spm.model")


def read_tokenizer(folder: Path | None) -> dict[str, Any]:
    """Return the content of the ``tokenizer.json`` in ``folder``.

    Raises:
        UnsupportedModel: there is none, or it is none.
    """
    path = None if folder is None else folder / _TOKENIZER
    try:
        if path is None:
            raise FileNotFoundError("the model comes without one")
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedModel(
            f"the tokenizer cannot be read: {error}",
            where=_TOKENIZER,
            cure="put the model's tokenizer.json beside it, or leave out prune-vocabulary",
        ) from error
    return content


def write_smaller(folder: Path, tokenizer: dict[str, Any], kept: Sequence[int]) -> None:
    """Write ``tokenizer``, which was read from ``folder``, with only the ``kept`` ids.

    Raises:
        OutputError: no room.
    """
    write_text(folder / _TOKENIZER, json.dumps(shrink_tokenizer(tokenizer, kept), ensure_ascii=False) + "\n")
    settings = folder / _SETTINGS
    if settings.is_file():
        content = json.loads(settings.read_text(encoding="utf-8"))
        added = content.get("added_tokens_decoder")
        if added:
            places = {str(old): str(new) for new, old in enumerate(kept)}
            content["added_tokens_decoder"] = {places[at]: token for at, token in added.items()}
            write_text(settings, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    generation = folder / _GENERATION
    if generation.is_file():
        write_text(generation, _renumber_ids(generation.read_text(encoding="utf-8"), kept))
    for name in _SOURCES:
        (folder / name).unlink(missing_ok=True)


def renumber(ids: int | list[int], places: Mapping[int, int]) -> int | list[int] | None:
    """Return the new id of an old one, or of several; what has none is left out."""
    if isinstance(ids, list):
        return [places[one] for one in ids if one in places]
    return places.get(ids)


def _renumber_ids(text: str, kept: Sequence[int]) -> str:
    """Return how a language model stops and begins, a JSON object, with the ids that its tokens have now."""
    places, content = {old: new for new, old in enumerate(kept)}, json.loads(text)
    for name, ids in content.items():
        if name.endswith("_token_id") and ids is not None:
            content[name] = renumber(ids, places)
    return json.dumps(content, indent=2) + "\n"
