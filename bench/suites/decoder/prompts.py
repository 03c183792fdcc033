"""Prompts of mixed length, plain and as conversations, out of texts that nothing was calibrated on.

In: a file with a paragraph a line, and an open export. Out: prompts, and their tokens by the one rule that
``stepdown run`` has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from runtimes.errors import UsageError
from runtimes.generation.generator import Generator, Prompt

# Words of a prompt, again and again.
_LENGTHS = (3, 8, 16, 32, 64, 120)


def write_prompts(texts: Path, count: int) -> list[str]:
    """Return the beginnings of so many paragraphs; each is another paragraph.

    Raises:
        UsageError: there are not so many that are long enough.
    """
    paragraphs = texts.read_text(encoding="utf-8").splitlines()
    long_enough = [words for words in map(str.split, paragraphs) if len(words) >= max(_LENGTHS)]
    if not 0 < count <= len(long_enough):
        raise UsageError(
            f"{count} prompts are asked for, and there are 1 to {len(long_enough)}",
            where=str(texts),
            cure="ask for fewer, or give more paragraphs",
        )
    return [" ".join(words[: _LENGTHS[place % len(_LENGTHS)]]) for place, words in enumerate(long_enough[:count])]


def ask_in_chat(texts: Iterable[str]) -> list[Prompt]:
    """Return each text as a conversation that begins with it."""
    return [[{"role": "user", "content": text}] for text in texts]


def encode_prompts(generator: Generator, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Return the tokens of prompts, as ``stepdown run`` has them."""
    return [generator.encode(prompt) for prompt in prompts]
