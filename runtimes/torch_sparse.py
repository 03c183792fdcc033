"""Pruned linears in PyTorch's own sparse forms: CSR (MKL on the CPU, cuSPARSE on a GPU) and 2:4 (cuSPARSELt, CUTLASS).

In: a module with pruned ``nn.Linear`` layers, a form. Out: the module edited in place, and what became of each layer.
What a form cannot hold is known before it is tried. Imports torch, inside its functions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from runtimes.errors import MissingDependency, UnsupportedModel

if TYPE_CHECKING:
    import torch
    from torch import nn

    Multiply = Callable[[torch.Tensor], torch.Tensor]

SparseForm = Literal["csr", "semi-structured", "semi-structured-int8"]
Library = Literal["cusparselt", "cutlass"]

#: Smallest rows and columns of a 2:4 weight [out, in], by library and dtype; both must be multiples of them
#: (torch/sparse/semi_structured.py of 2.13).
TWO_FOUR_MULTIPLES: Mapping[Library, Mapping[str, tuple[int, int]]] = {
    "cutlass": {"int8": (16, 128), "float16": (32, 64), "bfloat16": (32, 64), "float32": (32, 32)},
    "cusparselt": {"int8": (32, 32), "float16": (16, 16), "bfloat16": (16, 16)},
}
#: Sparse tensor cores came with Ampere.
_TWO_FOUR_FROM = (8, 0)
#: A value of CSR takes 8 bytes, its column included, one of a dense weight 4.
_CSR_BELOW_DENSITY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerForm:
    """One linear: the ``form`` it has now, or None and ``why`` it stayed dense."""

    name: str
    form: SparseForm | None
    why: str | None


def replace_linears(module: nn.Module, form: SparseForm) -> tuple[LayerForm, ...]:
    """Put every linear that ``form`` can hold into it, in place: its forward is another, taken from its weight now.

    The dense weight stays beside it for what reads it directly, such as ``nn.TransformerEncoderLayer`` on its fast
    path, which goes on multiplying dense.

    Args:
        module: Float32, on the device it will run on.
        form: ``csr`` keeps float32. ``semi-structured`` multiplies in float16, ``semi-structured-int8`` in int8 with
            scales for each output and each token; both need a GPU, and give float32.

    Raises:
        MissingDependency: 2:4 is asked for without a GPU that multiplies it.
        UnsupportedModel: not one linear can take the form; the message names the first reason.
    """
    import torch

    layers = []
    linears = [(name, one) for name, one in module.named_modules() if type(one) is torch.nn.Linear]
    library = _find_library(linears[0][1].weight.device) if linears and form != "csr" else None
    for name, linear in linears:
        why = _object(linear.weight, form, library)
        layers.append(LayerForm(name=name, form=None if why else form, why=why))
        if why is None:
            _replace(linear, form)
    if not any(layer.form for layer in layers):
        reason = f"{layers[0].name}: {layers[0].why}" if layers else "it has no linear layer"
        raise UnsupportedModel(
            f"no layer can be run as {form}", where=reason, cure="prune it for this form, or run it dense"
        )
    return tuple(layers)


def why_not_two_four(weight: torch.Tensor, dtype: str, library: Library) -> str | None:
    """Return why a weight [out, in] cannot be multiplied as 2:4 in ``dtype``; None where it can."""
    multiples = TWO_FOUR_MULTIPLES[library].get(dtype)
    if multiples is None:
        return f"{library} has no 2:4 product in {dtype}"
    rows, columns = weight.shape
    if rows % multiples[0] or columns % multiples[1]:
        return f"{library} wants multiples of {multiples[0]}x{multiples[1]} in {dtype}; this is {rows}x{columns}"
    crowded = int((weight.reshape(rows, columns // 4, 4) != 0).sum(dim=2).gt(2).sum())
    return f"{crowded} groups of four inputs hold more than two values" if crowded else None


def why_not_csr(weight: torch.Tensor) -> str | None:
    """Return why a weight [out, in] is no smaller as CSR; None where it is."""
    density = float((weight != 0).float().mean())
    if density >= _CSR_BELOW_DENSITY:
        return f"{density:.0%} of it is not zero; as CSR it is smaller below {_CSR_BELOW_DENSITY:.0%}"
    return None


def _object(weight: torch.Tensor, form: SparseForm, library: Library | None) -> str | None:
    dtype = str(weight.dtype).removeprefix("torch.")
    if dtype != "float32":
        return f"it is {dtype}; only float32 is put into sparse forms"
    if library is None:
        return why_not_csr(weight)
    return why_not_two_four(weight, "int8" if form == "semi-structured-int8" else "float16", library)


def _find_library(device: torch.device) -> Library:
    """Return the library that PyTorch takes for 2:4 here; cuSPARSELt where its build has it."""
    import torch

    if device.type != "cuda":
        raise MissingDependency(
            "2:4 is multiplied by sparse tensor cores, which a CPU has not",
            where=f"torch on {device.type}",
            cure="run it on a CUDA GPU, or choose csr or dense",
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < _TWO_FOUR_FROM:
        raise MissingDependency(
            f"this GPU has compute capability {capability[0]}.{capability[1]}; sparse tensor cores came with 8.0",
            where="torch on cuda",
            cure="choose csr or dense",
        )
    return "cusparselt" if torch.backends.cusparselt.is_available() else "cutlass"


def _replace(linear: nn.Linear, form: SparseForm) -> None:
    """Give ``linear`` another forward."""
    weight = linear.weight.detach()
    bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach()
    makers = {"csr": _csr, "semi-structured": _two_four, "semi-structured-int8": _two_four_int8}
    linear.forward = makers[form](weight, bias)  # type: ignore[method-assign, assignment] # this instance's alone


def _csr(weight: torch.Tensor, bias: torch.Tensor) -> Multiply:
    """Return ``x [..., in] @ weight.T + bias`` with the weight as CSR."""
    import torch

    with warnings.catch_warnings():
        # PyTorch says of every tensor of these kinds that they are new (2.13).
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        wide = weight.to_sparse_csr()
        # MKL's usual interface takes 32-bit indices; 64-bit ones are converted in each call.
        starts, columns = wide.crow_indices().int(), wide.col_indices().int()
        rows = torch.sparse_csr_tensor(starts, columns, wide.values(), size=weight.shape, check_invariants=True)

    def multiply(x: torch.Tensor) -> torch.Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        if len(tokens) == 1:
            product = torch.mv(rows, tokens[0]) + bias
        else:
            product = torch.addmm(bias[:, None], rows, tokens.t()).t()
        return product.reshape(*x.shape[:-1], len(bias))

    return multiply


def _two_four(weight: torch.Tensor, bias: torch.Tensor) -> Multiply:
    """Return ``x [..., in] @ weight.T + bias`` with a 2:4 weight in float16. PyTorch pads the tokens by itself."""
    import torch

    packed, narrow = _pack_two_four(weight.half()), bias.half()
    return lambda x: torch.nn.functional.linear(x.half(), packed, narrow).float()


def _two_four_int8(weight: torch.Tensor, bias: torch.Tensor) -> Multiply:
    """Return the same in int8: symmetric, one scale for each output and one for each token, found in each call."""
    scale = _find_scale(weight)
    packed = _pack_two_four(_round(weight, scale))

    def multiply(x: torch.Tensor) -> torch.Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        token_scale = _find_scale(tokens)
        sums = _multiply_int8(packed, _round(tokens, token_scale))
        product = sums.float() * (token_scale[:, None] * scale) + bias
        return product.reshape(*x.shape[:-1], len(bias))

    return multiply


def _pack_two_four(weight: torch.Tensor) -> torch.Tensor:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of SparseSemiStructuredTensor is in prototype", UserWarning)
        packed: torch.Tensor = torch.sparse.to_sparse_semi_structured(weight)
    return packed


def _find_scale(rows: torch.Tensor) -> torch.Tensor:
    import torch

    return rows.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127


def _round(rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    import torch

    return (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8)


def _multiply_int8(weight: Any, tokens: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - a private subclass of Tensor
    """Return ``tokens @ weight.T`` as int32 [tokens, out]. Left to themselves both libraries answer in int8."""
    import torch

    # Both want multiples of 16 tokens in int8.
    padded = torch.nn.functional.pad(tokens, (0, 0, 0, -len(tokens) % 16)).t()
    if weight.BACKEND == "cusparselt":
        sums = torch._cslt_sparse_mm(weight.packed, padded, out_dtype=torch.int32)
    else:
        sums = torch._sparse_semi_structured_mm(weight.packed, weight.meta, padded, out_dtype=torch.int32)
    return sums.t()[: len(tokens)]
