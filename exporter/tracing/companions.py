"""What lies beside a model and must travel with it: the configuration and the tokenizer.

In: the directory of the source. Out: copies in the directory of the trace. transformers is imported only to make a
``tokenizer.json`` where there is none.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from exporter.tracing.gguf_origin import ORIGIN_NAME

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"

# tokenizer.json holds the vocabulary; the files it was made from are not needed beside it.
_COMPANIONS = (
    CONFIG,
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    ORIGIN_NAME,
)
_VOCABULARIES = ("vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model", "tokenizer.model")


def copy_companions(source: Path, directory: Path) -> tuple[Path | None, tuple[str, ...]]:
    """Copy configuration and tokenizer from ``source`` to ``directory``.

    Returns:
        The ``tokenizer.json`` in ``directory``, or None where there is none, and what should be said about that.
    """
    for name in _COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
    tokenizer = directory / TOKENIZER
    if not tokenizer.is_file() and any((source / name).is_file() for name in _VOCABULARIES):
        _convert_tokenizer(source, directory)
    if tokenizer.is_file():
        return tokenizer, ()
    return None, (f"there is no tokenizer in {source}: texts cannot be used with this model, tensors can",)


def _convert_tokenizer(source: Path, directory: Path) -> None:
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(directory)
    except (OSError, ValueError, ImportError, KeyError, TypeError):
        return  # the caller sees that there is none, and says so
