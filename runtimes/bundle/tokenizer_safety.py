"""What must hold of a ``tokenizer.json`` before the library that runs it may see it.

In: a file nobody vouches for. Out: nothing, or an error. The library is written for tokenizers of people one trusts:
sizes in the file become allocations, and patterns become regular expressions. ``tokenizers`` is imported inside the
function that opens the file. Must not import anything else outside ``runtimes``.

Source: the file's form is that of huggingface/tokenizers, ``tokenizer/serialization.rs``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtimes.bundle.strict_json import corrupt, load_json
from runtimes.errors import MissingDependency
from runtimes.tokenizer_errors import tokenizer_errors

# The largest in use hold a quarter of a million words and half a million merges in 35 MB.
MAX_FILE_BYTES = 64 << 20
_MAX_WORDS = 2_000_000
# Positions a model may have; what pads or cuts to more is an allocation, not a setting.
_MAX_TOKENS = 1 << 24
_MAX_WORD_ID = 1 << 31
_MAX_PATTERN = 10_000
# What every tokenizer takes: plain words, marks, and letters that its vocabulary may lack.
_TEXTS = ("A plain text, no. 1!", "caf\u00e9 \u6771\u4eac \U0001f600")
_TOKENS = 16
_PARTS = frozenset(
    {
        "version",
        "truncation",
        "padding",
        "added_tokens",
        "normalizer",
        "pre_tokenizer",
        "post_processor",
        "decoder",
        "model",
    }
)


def check_tokenizer(path: Path, where: str) -> None:
    """Check the file, then let the library read it and take a text.

    Raises:
        CorruptArtifact: it is too large, not JSON, not a tokenizer, or has sizes that no tokenizer has.
        MissingDependency: ``tokenizers`` is not installed.
    """
    check_tokenizer_file(path, where)
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependency("tokenizers is not installed", cure='pip install "stepdown[device]"') from error
    with tokenizer_errors("not a tokenizer", where):
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
        tokenizer.no_padding()
        tokenizer.enable_truncation(_TOKENS)
        for text in _TEXTS:
            tokenizer.encode(text)


def check_tokenizer_file(path: Path, where: str) -> None:
    """Check what can be checked without the library.

    Raises:
        CorruptArtifact: see :func:`check_tokenizer`.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise corrupt(f"a tokenizer of more than {MAX_FILE_BYTES:,} bytes", where)
    document = load_json(path.read_bytes(), where, large_integers=True)
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise corrupt("not a tokenizer: it has no model", where)
    unknown = sorted(set(document) - _PARTS)
    if unknown:
        raise corrupt(f"not a tokenizer: unknown part {unknown[0][:80]!r}", where)
    _check_words(document, where)
    for part in ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"):
        for key, value in _walk(document.get(part)):
            _check_setting(key, value, f"{where}: {part}.{key[:80]}")


def _check_words(document: dict[str, Any], where: str) -> None:
    """Check that vocabulary, merges and added tokens are in bounds; their form is the library's business."""
    model = document["model"]
    for name, words in (("vocab", model.get("vocab")), ("merges", model.get("merges"))):
        if isinstance(words, list | dict) and len(words) > _MAX_WORDS:
            raise corrupt(f"{len(words):,} entries, {_MAX_WORDS:,} are allowed", f"{where}: model.{name}")
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        for number in vocabulary.values():
            if type(number) is not int or not 0 <= number < _MAX_WORD_ID:
                raise corrupt(f"{number!r} is no number of a word"[:200], f"{where}: model.vocab")
    added = document.get("added_tokens")
    if isinstance(added, list) and len(added) > _MAX_WORDS:
        raise corrupt(f"{len(added):,} entries, {_MAX_WORDS:,} are allowed", f"{where}: added_tokens")
    for key, value in _walk({name: value for name, value in model.items() if name not in {"vocab", "merges"}}):
        _check_setting(key, value, f"{where}: model.{key[:80]}")


def _check_setting(key: str, value: object, where: str) -> None:
    if isinstance(value, int) and not -_MAX_TOKENS <= value <= _MAX_TOKENS:
        raise corrupt(f"{value} is no size that a tokenizer has", where)
    if key in {"Regex", "Fixed", "pad_to_multiple_of"}:
        if key == "Regex" and (not isinstance(value, str) or len(value) > _MAX_PATTERN):
            raise corrupt(f"a pattern of more than {_MAX_PATTERN:,} characters", where)
        if key == "pad_to_multiple_of" and value is not None and (type(value) is not int or value < 1):
            raise corrupt(f"{value!r} is nothing to pad to"[:200], where)


def _walk(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield every plain value below, with the key it stands under."""
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            yield from _walk(inner, inner_key)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, key)
    else:
        yield key, value
