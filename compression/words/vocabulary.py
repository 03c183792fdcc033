"""A smaller vocabulary: the pieces that data never uses leave the tokenizer, and their rows the embeddings.

In: the content of a ``tokenizer.json``, how often each piece occurs, and what to keep. Out: a smaller tokenizer whose
ids are 0, 1, 2, ... again, and for each of them the id it had. Plain data; imports nothing that is heavy.

What leaves is cut into smaller pieces from then on, and every text can still be told:

* WordPiece keeps each single character, at the start of a word and inside one. Longest-match-first then never ends at
  a character without a piece, so that no word becomes unknown that was not.
* BPE keeps its alphabet, and a piece stays only with the two it is merged from.
* Unigram keeps its single characters (and its bytes), and with them a way through every text.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtimes.errors import UnsupportedModel

# Pieces that only stand for a byte, as sentencepiece writes them: what is in no other piece is told by these.
_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The pieces of a tokenizer, as :func:`read_vocabulary` finds them.

    Attributes:
        kind: ``WordPiece``, ``BPE`` or ``Unigram``.
        pieces: By id; None where the tokenizer has no piece of that id.
        special: Ids that stay whatever the data says: added tokens, the unknown one, and what the processors insert.
        alphabet: Ids of the pieces of one character, which make every text tellable.
        parents: For BPE, the ids a piece is merged from, the first rule that makes it.
    """

    kind: str
    pieces: tuple[str | None, ...]
    special: frozenset[int]
    alphabet: frozenset[int]
    parents: Mapping[int, tuple[int, int]]


def read_vocabulary(tokenizer: Mapping[str, Any], also: Iterable[int] = ()) -> Vocabulary:
    """Read the content of a ``tokenizer.json``; ``also`` are ids that must stay for reasons of the model.

    Raises:
        UnsupportedModel: its model is of another kind, or has no alphabet that could tell every text.
    """
    model = tokenizer["model"]
    kind = model.get("type", "BPE")
    ids = _list_ids(model, kind)
    ids |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    pieces: list[str | None] = [None] * (max(ids.values()) + 1)
    for piece, at in ids.items():
        pieces[at] = piece
    special = {token["id"] for token in tokenizer["added_tokens"]} | set(_list_processor_ids(tokenizer))
    special |= {at for at in also if at < len(pieces) and pieces[at] is not None}
    unknown = model.get("unk_id") if kind == "Unigram" else ids.get(model.get("unk_token"))
    special |= set() if unknown is None else {unknown}
    plain = {piece: at for piece, at in ids.items() if at not in special}
    return Vocabulary(
        kind=kind,
        pieces=tuple(pieces),
        special=frozenset(special),
        alphabet=frozenset(_find_alphabet(plain, model, kind)),
        parents=_find_parents(model, ids) if kind == "BPE" else {},
    )


def choose_pieces(
    vocabulary: Vocabulary, counts: Sequence[int], *, min_count: int, size: int | None, whole_alphabet: bool
) -> list[int]:
    """Return the ids to keep, in order.

    Args:
        vocabulary: All pieces.
        counts: How often the data has each id; ids beyond its end count 0.
        min_count: What occurs less often leaves.
        size: At most so many stay, the most frequent ones; None for no limit. What must stay stays beyond it.
        whole_alphabet: Whether characters that the data never shows stay too. Without them such a character is unknown
            from then on; those inside of pieces that occur always stay.
    """
    seen = dict(enumerate(counts))
    needed = set(vocabulary.special)
    alphabet = vocabulary.alphabet
    if not whole_alphabet:
        alphabet = _find_used_alphabet(vocabulary, seen)
    needed |= alphabet
    frequent = [
        at
        for at, piece in enumerate(vocabulary.pieces)
        if piece is not None and at not in needed and seen.get(at, 0) >= min_count
    ]
    frequent.sort(key=lambda at: -seen.get(at, 0))
    for at in frequent:
        added = _trace_parents(vocabulary, at, needed)
        if size is None or len(needed) + len(added) <= size:
            needed |= added
    return sorted(needed)


def shrink_tokenizer(tokenizer: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return the content of a ``tokenizer.json`` with only the ``kept`` ids, which become 0, 1, 2, ... in that order.

    Raises:
        UnsupportedModel: the model is of a kind that cannot be shrunk.
    """
    smaller: dict[str, Any] = copy.deepcopy(dict(tokenizer))
    places = {old: new for new, old in enumerate(kept)}
    model = smaller["model"]
    kind = model.get("type", "BPE")
    if kind == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in kept if old < len(model["vocab"])]
        model["unk_id"] = None if model["unk_id"] is None else places[model["unk_id"]]
    else:
        model["vocab"] = {piece: places[at] for piece, at in model["vocab"].items() if at in places}
    if kind == "BPE":
        known = model["vocab"]
        merges = [(merge, _split_merge(merge)) for merge in model["merges"]]
        model["merges"] = [
            merge for merge, (left, right) in merges if {left, right, _join_merge(left, right, model)} <= known.keys()
        ]
    for token in smaller["added_tokens"]:
        token["id"] = places[token["id"]]
    _renumber_processor(smaller.get("post_processor"), places)
    if smaller.get("padding"):
        smaller["padding"]["pad_id"] = places[smaller["padding"]["pad_id"]]
    return smaller


def _list_ids(model: Mapping[str, Any], kind: str) -> dict[str, int]:
    match kind:
        case "WordPiece" | "BPE":
            return dict(model["vocab"])
        case "Unigram":
            return {piece: at for at, (piece, _) in enumerate(model["vocab"])}
        case other:
            raise UnsupportedModel(
                f"a {other} tokenizer cannot be made smaller: its pieces cannot be told by smaller ones",
                where="tokenizer.json: model.type",
                cure="leave out prune-vocabulary; WordPiece, BPE and Unigram work",
            )


def _find_alphabet(ids: Mapping[str, int], model: Mapping[str, Any], kind: str) -> Iterable[int]:
    if kind == "WordPiece":
        inside = model["continuing_subword_prefix"]
        _require_alphabet(ids, inside)
        return {at for piece, at in ids.items() if _count_characters(piece, inside) == 1}
    if kind == "BPE":
        made = {_join_merge(*_split_merge(merge), model) for merge in model["merges"]}
        return {at for piece, at in ids.items() if piece not in made}
    # A piece with a character that has no piece of its own is itself the only way to tell that character.
    return {
        at
        for piece, at in ids.items()
        if len(piece) == 1 or piece in _BYTES or any(letter not in ids for letter in piece)
    }


def _count_characters(piece: str, inside: str) -> int:
    return len(piece) - len(inside) if piece.startswith(inside) and len(piece) > len(inside) else len(piece)


def _require_alphabet(ids: Mapping[str, int], inside: str) -> None:
    """Refuse a WordPiece vocabulary where a character occurs in a piece and is none itself, at such a place."""
    for piece in ids:
        if piece.startswith("[") and piece.endswith("]"):
            continue  # special, or a place kept free ([unused0]): texts are cut at brackets before they get here
        size = _count_characters(piece, inside)
        start = piece[:-size] if size else ""
        letters = [(start if place == 0 else inside) + letter for place, letter in enumerate(piece[len(start) :])]
        lacking = [letter for letter in letters if letter not in ids]
        if lacking:
            raise UnsupportedModel(
                f"'{piece}' cannot leave: its character '{lacking[0]}' is no piece, and would be unknown without it",
                where="tokenizer.json: model.vocab",
                cure="leave out prune-vocabulary, or train the tokenizer again with its whole alphabet",
            )


def _find_used_alphabet(vocabulary: Vocabulary, seen: Mapping[int, int]) -> frozenset[int]:
    if vocabulary.kind != "WordPiece":
        return vocabulary.alphabet
    used = {letter for at, piece in enumerate(vocabulary.pieces) if piece and seen.get(at, 0) for letter in piece}
    return frozenset(at for at in vocabulary.alphabet if (vocabulary.pieces[at] or "")[-1] in used)


def _find_parents(model: Mapping[str, Any], ids: Mapping[str, int]) -> dict[int, tuple[int, int]]:
    parents: dict[int, tuple[int, int]] = {}
    for merge in model["merges"]:
        left, right = _split_merge(merge)
        parents.setdefault(ids[_join_merge(left, right, model)], (ids[left], ids[right]))
    return parents


def _trace_parents(vocabulary: Vocabulary, at: int, needed: set[int]) -> set[int]:
    added: set[int] = set()
    waiting = [at]
    while waiting:
        one = waiting.pop()
        if one not in needed and one not in added:
            added.add(one)
            waiting += vocabulary.parents.get(one, ())
    return added


def _split_merge(merge: str | Sequence[str]) -> tuple[str, str]:
    # Older files write a merge as one text.
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _join_merge(left: str, right: str, model: Mapping[str, Any]) -> str:
    return left + right.removeprefix(model.get("continuing_subword_prefix") or "")


def _list_processor_ids(tokenizer: Mapping[str, Any]) -> Iterable[int]:
    for processor in _list_processors(tokenizer.get("post_processor")):
        for token in processor.get("special_tokens", {}).values():
            yield from token["ids"]
        for name in ("sep", "cls"):
            if name in processor:
                yield processor[name][1]


def _renumber_processor(post_processor: dict[str, Any] | None, places: Mapping[int, int]) -> None:
    for processor in _list_processors(post_processor):
        for token in processor.get("special_tokens", {}).values():
            token["ids"] = [places[at] for at in token["ids"]]
        for name in ("sep", "cls"):
            if name in processor:
                processor[name] = [processor[name][0], places[processor[name][1]]]


def _list_processors(post_processor: dict[str, Any] | None) -> list[dict[str, Any]]:
    if post_processor is None:
        return []
    return post_processor["processors"] if post_processor["type"] == "Sequence" else [post_processor]
