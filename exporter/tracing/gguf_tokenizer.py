"""The tokenizer of a GGUF file as Hugging Face's: it must cut a text into the pieces its merges were learned on.

In: a ``.gguf`` file. Out: ``tokenizer.json``, its settings and the chat template in a directory. Imports transformers.

A byte-level vocabulary names its way of splitting (``tokenizer.ggml.pre``) without saying what that is. transformers
knows some names and takes every other for GPT-2's, which turns "2026" into one piece where the model has learned four
digits: other tokens and worse answers, without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from runtimes.errors import UnsupportedModel

# What llama.cpp reads each name as (src/llama-vocab.cpp: the regular expressions, and ``ignore_merges``).
_GPT2 = {"gpt-2", "phi-2", "mpt", "olmo", "mellum", "exaone4", "trillion"}
_SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell"}
# A piece that is a token is that token, whatever its merges give.
_WHOLE_PIECES = {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "lfm2", "tekken"}


def save_gguf_tokenizer(path: Path, directory: Path, *, context: int | None) -> None:
    """Write the tokenizer of a GGUF file into ``directory``.

    Args:
        path: The file.
        directory: An existing one.
        context: The most tokens the model takes; None where the file does not say.

    Raises:
        UnsupportedModel: the file splits texts in a way that is not known here.
        Exception: transformers does not know this kind of tokenizer, or it is incomplete or contradicts itself.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer

    architecture, described, settings = get_gguf_tokenizer(str(path))
    backend, _ = convert_gguf_tokenizer(architecture, described)
    if described.get("tokenizer_type") == "gpt2":
        _split_as_learned(backend, described.get("pre_tokenizer_type"), path)
    limit: dict[str, Any] = {} if context is None else {"model_max_length": context}
    PreTrainedTokenizerFast(tokenizer_object=backend, **settings, **limit).save_pretrained(directory)


def _split_as_learned(backend: Tokenizer, name: str | None, path: Path) -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if name in _SINGLE_DIGITS:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif name not in _GPT2 and name not in GGUF_PRE_TOKENIZER_SPLITS:
        raise UnsupportedModel(
            f"the tokenizer splits texts by '{name}', which is not known here: the model would get wrong tokens"
            if name
            else "the file does not say how its tokenizer splits texts: the model would get wrong tokens",
            where=f"{path}:tokenizer.ggml.pre",
            cure="give the Hugging Face directory that the file was made from",
        )
    if name in _WHOLE_PIECES:
        backend.model.ignore_merges = True
