"""An auxiliary loss that needs no labels: predict hidden tokens with the encoder that is being trained.

In: an encoder with token embeddings, tokens hidden in its input. Out: logits over its vocabulary. Imports torch.

The head is BERT's (Devlin et al., NAACL 2019, arXiv:1810.04805), tied to the embeddings; it learns with the model and
is thrown away after the training. The table is read by looking up every id, so that any embedding will do: a quantised
one, or one of two factors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from runtimes.errors import UsageError


class MaskedHead(nn.Module):
    """Hidden states float [tokens, hidden] to logits float [tokens, vocabulary]."""

    def __init__(self, hidden: int, width: int, vocabulary: int, epsilon: float = 1e-12) -> None:
        super().__init__()
        self.transform = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    @classmethod
    def for_model(cls, model: nn.Module) -> MaskedHead:
        """Make one that fits a model of transformers.

        Raises:
            UsageError: the model does not say what its embeddings and its encoder are.
        """
        if not hasattr(model, "get_input_embeddings") or not hasattr(model, "base_model"):
            raise UsageError(
                "hidden tokens cannot be predicted: the model is none of transformers",
                where=type(model).__name__,
                cure="masked_weight = 0",
            )
        shape: Any = model
        table = read_table(model)
        return cls(int(shape.config.hidden_size), table.shape[1], table.shape[0])

    def forward(self, states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Return logits; ``table`` is float [vocabulary, width]."""
        return self.norm(nn.functional.gelu(self.transform(states))) @ table.t() + self.bias


def read_table(model: nn.Module) -> torch.Tensor:
    """Return every row of the token embeddings, float [vocabulary, width], with gradients."""
    shape: Any = model
    return shape.get_input_embeddings()(torch.arange(int(shape.config.vocab_size)))
