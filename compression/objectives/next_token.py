"""What a causal language model learns: each token from those before it, a piece of the tokens at a time.

In: a model and batches of tokens. Out: losses. Imports torch.

The logits of a batch would take 400 MB for 2,048 tokens and 49,152 pieces, and several times that with their gradients.
Here the head is applied to as many tokens as fit into 64 MB, and their gradients are computed at once and added up, as
Hsu et al., "Liger Kernel" (arXiv:2410.10989), section 3.2, do on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from compression.models.forward import read_states
from compression.samples import Batch
from runtimes.errors import UnsupportedModel

# Logits that are there at one time.
_PIECE_LOGITS = 1 << 24
# As far as two ways to the same logits may differ by rounding, of their largest.
_ROUNDING = 1e-4

#: The summed loss of some rows: which of them, and their states [rows, width].
MeasureRows = Callable[[slice, torch.Tensor], torch.Tensor]


def measure_next(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy over the tokens of a batch that have one before them, in nats."""
    asked = find_asked(batch.inputs)
    states, wanted = read_states(model, batch.inputs)[:, :-1][asked], batch.inputs["input_ids"][:, 1:][asked]
    if not len(states):
        return states.sum()  # a mean over nothing is no number

    def measure(rows: slice, some: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(apply_head(model, some), wanted[rows], reduction="sum")

    return sum_in_pieces(model, states, measure) / len(states)


def find_asked(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return bool [batch, sequence - 1]: where a token and the one behind it are no padding."""
    mask = inputs.get("attention_mask")
    if mask is None:
        return torch.ones_like(inputs["input_ids"][:, 1:], dtype=torch.bool)
    return mask[:, :-1].bool() & mask[:, 1:].bool()


def apply_head(model: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """Return the logits of states [rows, width], float32 [rows, vocabulary]."""
    shape: Any = model
    logits: torch.Tensor = shape.get_output_embeddings()(states)
    return logits.float()


def check_head(model: nn.Module) -> None:
    """Make sure that a model's logits are what its head gives, and nothing behind it.

    Raises:
        UnsupportedModel: they are not, as where they are capped or scaled.
    """
    shape: Any = model
    training = model.training
    model.eval()
    with torch.no_grad():
        inputs = {"input_ids": torch.arange(2)[None]}
        own = shape(**inputs).logits.float()
        made = apply_head(model, read_states(model, inputs))
    model.train(training)
    if float((own - made).abs().max()) > _ROUNDING * float(own.abs().max()):
        raise UnsupportedModel(
            f"{type(model).__name__} changes its logits behind its head, which training does not know of",
            where=type(model).__name__,
            cure="use steps that do not train, or a model without capped or scaled logits",
        )


def sum_in_pieces(model: nn.Module, states: torch.Tensor, measure: MeasureRows) -> torch.Tensor:
    """Return the sum of ``measure`` over pieces of the rows of ``states`` [rows, width], with gradients.

    Args:
        model: Its head's parameters get their gradients too.
        states: What the head reads.
        measure: Depends on ``states`` and the head's parameters alone.
    """
    shape: Any = model
    head = shape.get_output_embeddings()
    size = max(1, _PIECE_LOGITS // int(shape.config.vocab_size))
    pieces = [slice(start, start + size) for start in range(0, len(states), size)]
    if not torch.is_grad_enabled():
        return torch.stack([measure(piece, states[piece]) for piece in pieces]).sum()
    learning = [parameter for parameter in head.parameters() if parameter.requires_grad]
    total: torch.Tensor = _Pieces.apply(measure, pieces, states, *learning)
    return total


class _Pieces(torch.autograd.Function):
    """The sum over pieces; gradients are computed on the way forward, while the piece's logits are there."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        measure: MeasureRows,
        pieces: list[slice],
        states: torch.Tensor,
        *learning: torch.Tensor,
    ) -> torch.Tensor:
        total = states.new_zeros(())
        gradients = [torch.zeros_like(tensor) for tensor in (states, *learning)]
        for piece in pieces:
            with torch.enable_grad():
                some = states[piece].detach().requires_grad_()
                loss = measure(piece, some)
                own, *shared = torch.autograd.grad(loss, [some, *learning])
            total += loss.detach()
            gradients[0][piece] = own
            for gradient, part in zip(gradients[1:], shared, strict=True):
                gradient += part
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *above: Any) -> Any:  # noqa: ANN401 - torch's own
        return None, None, *(above[0] * gradient for gradient in ctx.saved_tensors)
