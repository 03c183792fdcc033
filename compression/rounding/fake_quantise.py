"""Linears and embeddings that train with the rounding of 8 or 4 bits: learned step sizes, exported as Q and DQ.

In: a model, the names of its layers, and runs that show what their inputs look like. Out: the model with those
replaced. Imports torch.

Learned step size quantization: Esser et al., "Learned Step Size Quantization", ICLR 2020 (arXiv:1902.08153). 8-bit
weights have a scale for each row; 4-bit ones a scale for each block of 32 along a row, as ONNX Runtime's MatMulNBits
holds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Self, TypeVar

import torch
from torch import nn

from compression.models.inputs import Run, watch_inputs
from compression.objectives.precision import compute_in
from compression.rounding.learned_steps import fit_scales, learn_scales, pick_values, round_rows, round_to_steps
from compression.rounding.trace_rounding import FIRST_OPSET_OF_4_BITS, trace_input, trace_rows

Bits = Literal[8, 4]
M = TypeVar("M", bound=nn.Module)

#: Weights that share a scale where they have 4 bits.
BLOCK = 32
# Values of a linear's input that are kept from each batch to fit its first scale; a batch of 32 x 128 tokens has 1.5 M.
_KEPT_VALUES = 1 << 14


class FakeQuantisedLinear(nn.Module):
    """A linear whose weight, and with ``rounds_input`` whose input, is rounded to symmetric whole numbers.

    Weights stay float32 and trainable, shape (outputs, inputs). ``weight_scale`` [outputs], or [outputs, blocks] of 4
    bits, and ``input_scale`` [] learn inside :func:`learn_all_scales` only. While a program is exported the rounding
    becomes ONNX QuantizeLinear and DequantizeLinear with the learned scales.
    """

    kind: ClassVar[str] = "fake_quantised"

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, bits: Bits = 8, rounds_input: bool = True
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bits = in_features, out_features, bits
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.weight_scale = _hold_scales(torch.ones(_shape_scales(out_features, in_features, bits)))
        self.input_scale = _hold_scales(torch.ones(())) if rounds_input else None

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, bits: Bits, inputs: torch.Tensor | None) -> FakeQuantisedLinear:
        """Start from a trained linear and its parameters; ``inputs`` are values of its input, if that is rounded."""
        made = cls(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            bits=bits,
            rounds_input=inputs is not None,
        )
        made.weight = linear.get_parameter("weight")
        made.bias = linear.get_parameter("bias") if linear.bias is not None else None
        made.weight_scale.copy_(_fit_rows(linear.weight.detach(), bits))
        if made.input_scale is not None and inputs is not None:
            made.input_scale.copy_(fit_scales(inputs.flatten(), bits=8))
        return made

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> Self:
        """Make one with no weights yet, from what :meth:`describe` gave."""
        return cls(
            int(described["inputs"]),
            int(described["outputs"]),
            bias=bool(described["bias"]),
            bits=_read_bits(described),
            rounds_input=bool(described["rounds_input"]),
        )

    def describe(self) -> dict[str, Any]:
        """Return its sizes and how it rounds, plain data."""
        sizes = {"inputs": self.in_features, "outputs": self.out_features, "bias": self.bias is not None}
        return {**sizes, "bits": self.bits, "rounds_input": self.input_scale is not None}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) to (..., outputs)."""
        if torch.compiler.is_exporting():
            rounded = inputs if self.input_scale is None else trace_input(inputs, self.input_scale)
            product = torch.matmul(rounded, trace_rows(self.weight, self.weight_scale, self.bits, turned=True))
            return product if self.bias is None else product + self.bias
        # bfloat16 has 8 bits: it would round again, between the steps that are to be learned.
        with compute_in("fp32"):
            inputs = inputs.float()
            if self.input_scale is not None:
                inputs = round_to_steps(inputs, self.input_scale, math.prod(inputs.shape[1:]))
            weight = round_rows(self.weight, self.weight_scale, self.bits)
            return nn.functional.linear(inputs, weight, self.bias)


class FakeQuantisedEmbedding(nn.Module):
    """An embedding whose rows are rounded to symmetric whole numbers, as the weight of the linear is."""

    kind: ClassVar[str] = "fake_quantised_embedding"

    def __init__(self, num_embeddings: int, embedding_dim: int, *, padding_idx: int | None, bits: Bits = 8) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx, self.bits = padding_idx, bits
        self.weight = nn.Parameter(torch.zeros(num_embeddings, embedding_dim))
        self.weight_scale = _hold_scales(torch.ones(_shape_scales(num_embeddings, embedding_dim, bits)))

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding, *, bits: Bits) -> FakeQuantisedEmbedding:
        """Start from a trained embedding and its table, which may be tied to an output layer."""
        sizes = (embedding.num_embeddings, embedding.embedding_dim)
        made = cls(*sizes, padding_idx=embedding.padding_idx, bits=bits)
        made.weight = embedding.get_parameter("weight")
        made.weight_scale.copy_(_fit_rows(embedding.weight.detach(), bits))
        return made

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> Self:
        """Make one with no weights yet, from what :meth:`describe` gave."""
        padding = described["padding"]
        sizes = (int(described["rows"]), int(described["width"]))
        return cls(*sizes, padding_idx=None if padding is None else int(padding), bits=_read_bits(described))

    def describe(self) -> dict[str, Any]:
        """Return its sizes and how it rounds, plain data."""
        sizes = {"rows": self.num_embeddings, "width": self.embedding_dim, "padding": self.padding_idx}
        return {**sizes, "bits": self.bits}

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Map ids (...) to rows (..., width)."""
        if torch.compiler.is_exporting():
            return nn.functional.embedding(ids, trace_rows(self.weight, self.weight_scale, self.bits))
        rows = nn.functional.embedding(ids, self.weight, self.padding_idx)
        return round_rows(rows, self.weight_scale[ids], self.bits)


def fake_quantise(
    model: nn.Module,
    names: Iterable[str],
    runs: Iterable[Run] | None,
    *,
    bits: Bits = 8,
) -> None:
    """Replace the named linears of ``model``.

    Args:
        model: Whose linears they are.
        names: Linears.
        runs: Show how large the inputs of linears are; None leaves those as they are.
        bits: Of the weights; 8 or 4.

    Raises:
        ValueError: a name is not a linear.
        DataError: there are no runs.
        UsageError: no run reached a linear.
    """
    linears = {name: _get(model, name, nn.Linear) for name in names}
    seen = {} if runs is None else _pick_inputs(model, list(linears), runs)
    for name, linear in linears.items():
        made = FakeQuantisedLinear.from_linear(linear, bits=bits, inputs=seen.get(name))
        model.set_submodule(name, made.train(linear.training))


def fake_quantise_embeddings(model: nn.Module, names: Iterable[str], *, bits: Bits = 8) -> None:
    """Replace the named embeddings of ``model``.

    Raises:
        ValueError: a name is not an embedding.
    """
    for name in names:
        embedding = _get(model, name, nn.Embedding)
        made = FakeQuantisedEmbedding.from_embedding(embedding, bits=bits)
        model.set_submodule(name, made.train(embedding.training))


def find_oldest_opset(model: nn.Module) -> int:
    """Return the first ONNX operator set that can say what the model's modules round to; 0 where any can."""
    kinds = (FakeQuantisedLinear, FakeQuantisedEmbedding)
    narrow = any(isinstance(module, kinds) and module.bits == 4 for module in model.modules())
    return FIRST_OPSET_OF_4_BITS if narrow else 0


@contextmanager
def learn_all_scales(model: nn.Module) -> Iterator[None]:
    """Let the scales of all fake-quantised modules learn while the context is open."""
    owners = [module for module in model.modules() if isinstance(module, FakeQuantisedLinear | FakeQuantisedEmbedding)]
    held = [(module, name) for module in owners for name, _ in module.named_parameters() if name.endswith("_scale")]
    with learn_scales(held):
        yield


def _pick_inputs(model: nn.Module, names: Sequence[str], runs: Iterable[Run]) -> dict[str, torch.Tensor]:
    """Return some values of each linear's input, its largest among them."""
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    watch_inputs(model, names, runs, lambda name, rows: seen[name].append(pick_values(rows, _KEPT_VALUES)))
    return {name: torch.cat(values) for name, values in seen.items()}


def _hold_scales(scales: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(scales, requires_grad=False)


def _shape_scales(rows: int, width: int, bits: Bits) -> tuple[int, ...]:
    # A row that is no whole number of blocks has one scale.
    return (rows, width // BLOCK) if bits == 4 and width % BLOCK == 0 else (rows,)


def _fit_rows(rows: torch.Tensor, bits: Bits) -> torch.Tensor:
    shape = _shape_scales(rows.shape[0], rows.shape[1], bits)
    return fit_scales(rows.view(*shape, -1), bits)


def _read_bits(described: Mapping[str, Any]) -> Bits:
    if described["bits"] == 8:
        return 8
    if described["bits"] == 4:
        return 4
    raise ValueError(f"{described['bits']} bits")


def _get(model: nn.Module, name: str, kind: type[M]) -> M:
    module = model.get_submodule(name)
    if not isinstance(module, kind):
        raise ValueError(f"'{name}' is a {type(module).__name__}, not a {kind.__name__}")
    return module
