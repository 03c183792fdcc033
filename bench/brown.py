"""The Brown corpus as plain English: words with their tags in, paragraphs out.

In: the files of the corpus (Francis and Kucera, 1964), one document each. Out: a text file with a paragraph a line.
Must not import: torch, a runtime, calibration, exporter.
"""

from __future__ import annotations

import re
from pathlib import Path

# A document is ``c``, the letter of its kind and its number.
_DOCUMENT = re.compile(r"c[a-r]\d\d")
_QUOTES = {"``": '"', "''": '"'}
_JOINS_LEFT = frozenset({",", ".", ";", ":", "?", "!", ")", "]", "'"})
_OPENING = frozenset({"(", "[", "``"})


def list_documents(folder: Path) -> list[Path]:
    """Return the files of the corpus that hold a document, in order."""
    return sorted(path for path in folder.iterdir() if _DOCUMENT.fullmatch(path.name))


def read_paragraphs(document: Path) -> list[str]:
    """Return the paragraphs of a document as people write them: no tags, no space before a comma."""
    blocks = re.split(r"\n\s*\n", document.read_text(encoding="ascii"))
    paragraphs = (join_words([token.rpartition("/")[0] for token in block.split()]) for block in blocks)
    return [paragraph for paragraph in paragraphs if paragraph]


def join_words(words: list[str]) -> str:
    """Return words and punctuation as one text; the corpus writes some marks (``? ?``) twice."""
    text, joined, before = "", True, ""
    for word in words:
        if word == before and word in _JOINS_LEFT:
            continue
        left = word in _JOINS_LEFT or word == "''"
        text += ("" if joined or left else " ") + _QUOTES.get(word, word)
        joined, before = word in _OPENING, word
    return text
