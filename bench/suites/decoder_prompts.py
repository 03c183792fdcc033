"""Prompts of mixed length, plain and as conversations, out of texts that nothing was calibrated on.

In: a checkpoint or an export with its tokenizer. Out: rows of tokens.
"""

from __future__ import annotations

from pathlib import Path

from bench import assets
from runtimes.generation.chat_template import read_chat_template
from runtimes.generation.text_files import read_text_files

# Words of a prompt, again and again.
_LENGTHS = (3, 8, 16, 32, 64, 120)


def write_prompts(count: int) -> list[str]:
    """Return the beginnings of so many paragraphs; each is another paragraph."""
    paragraphs = assets.english().test.read_text(encoding="utf-8").splitlines()
    long_enough = [words for words in map(str.split, paragraphs) if len(words) >= max(_LENGTHS)]
    return [" ".join(words[: _LENGTHS[place % len(_LENGTHS)]]) for place, words in enumerate(long_enough[:count])]


def encode_plain(directory: Path, prompts: list[str]) -> list[list[int]]:
    """Return the tokens of texts to be continued."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in prompts]


def encode_chat(directory: Path, prompts: list[str]) -> list[list[int]]:
    """Return the tokens of conversations that begin with each text; none where the model has no chat template."""
    template = read_chat_template(read_text_files(directory))
    if template is None:
        return []
    return encode_plain(directory, [template.render([{"role": "user", "content": prompt}]) for prompt in prompts])
