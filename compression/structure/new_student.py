"""A small language model to be taught by a large one: its layers are new, its words those of the teacher.

In: the large model and a shape. Out: a GPT-2 or a Llama that reads the same tokens. Imports torch and transformers.

Words start as the teacher's, in the directions in which those differ most (principal axes, uncentred): what is near
for the teacher is near for the student before it has learned anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from compression.models.turned_linear import turn_conv1d
from compression.objectives.masked_head import read_table

# What both families draw their weights with.
_SPREAD = 0.02
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentShape:
    """The sizes of a student; ``kv_heads`` and ``neurons`` are of each layer, ``max_length`` in tokens."""

    architecture: Literal["gpt2", "llama"]
    layers: int
    width: int
    heads: int
    kv_heads: int
    neurons: int
    max_length: int


def make_student(teacher: nn.Module, shape: StudentShape, seed: int, *, keep_words: bool) -> nn.Module:
    """Return a new model in evaluation mode; head and embeddings are one matrix, and nothing is dropped out.

    Args:
        teacher: Whose vocabulary and, with ``keep_words``, whose embeddings it gets.
        shape: Its sizes.
        seed: Of its first weights.
        keep_words: Whether the embeddings start as the teacher's.
    """
    import transformers

    source: Any = teacher
    ids = {name: getattr(source.config, name, None) for name in _IDS}
    config: Any = _describe_gpt2(shape) if shape.architecture == "gpt2" else _describe_llama(shape)
    config.update({**ids, "vocab_size": int(source.config.vocab_size), "use_cache": False})
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student: Any = transformers.AutoModelForCausalLM.from_config(config)
        if keep_words:
            with torch.no_grad():
                words = student.get_input_embeddings().weight
                kept = _shorten(read_table(teacher).double(), words.shape[1])
                words[:, : kept.shape[1]] = kept * _SPREAD / kept.std()
    return turn_conv1d(student.eval())


def _shorten(table: torch.Tensor, width: int) -> torch.Tensor:
    """Return rows [rows, columns] along the ``width`` principal axes of theirs, the largest first."""
    _, axes = torch.linalg.eigh(table.T @ table)
    return table @ axes.flip(1)[:, :width]


def _describe_gpt2(shape: StudentShape) -> Any:  # noqa: ANN401 - transformers' is untyped
    from transformers import GPT2Config

    return GPT2Config(
        n_layer=shape.layers,
        n_embd=shape.width,
        n_head=shape.heads,
        n_inner=shape.neurons,
        n_positions=shape.max_length,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )


def _describe_llama(shape: StudentShape) -> Any:  # noqa: ANN401
    from transformers import LlamaConfig

    return LlamaConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.width,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.neurons,
        max_position_embeddings=shape.max_length,
        tie_word_embeddings=True,
    )
