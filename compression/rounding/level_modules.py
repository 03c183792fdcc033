"""Linears and embeddings whose weights are whole numbers of 1 or 2 bits, times a scale for each row.

In: trained linears and embeddings. Out: modules in their place. Imports torch.

Both hold ``levels``, int8, and ``scale``, float32 [rows], which can go on learning. A state dict, and so a checkpoint,
has the levels packed: ``codes``, uint8 [rows, bytes], see :mod:`compression.rounding.low_bit`. A graph is traced with
plain floats (:func:`spell_out`); an export that ships such weights packs them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn

from compression.rounding.few_levels import CHOOSE
from compression.rounding.low_bit import BITS, Form, pack_levels, unpack_levels


class LevelLinear(nn.Module):
    """A linear whose weight is levels -1, 0 and 1 (``ternary``) or -1 and 1 (``binary``) times a scale an output."""

    kind: ClassVar[str] = "level_linear"
    levels: torch.Tensor

    def __init__(self, in_features: int, out_features: int, *, form: Form, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features, self.form = in_features, out_features, form
        self.scale = nn.Parameter(torch.ones(out_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        _add_levels(self, out_features, in_features)

    @classmethod
    def from_linear(cls, linear: nn.Linear, form: Form) -> LevelLinear:
        """Bring a trained linear's weight (outputs, inputs) to levels; the bias stays as it is."""
        made = cls(linear.in_features, linear.out_features, form=form, bias=linear.bias is not None)
        _fill(made, linear.weight)
        made.bias = linear.bias
        return made

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> Self:
        """Make one with no weights yet, from what :meth:`describe` gave."""
        inputs, outputs, bias = int(described["inputs"]), int(described["outputs"]), bool(described["bias"])
        return cls(inputs, outputs, form=_read_form(described), bias=bias)

    def describe(self) -> dict[str, Any]:
        """Return its sizes and which levels there are, plain data."""
        sizes = {"inputs": self.in_features, "outputs": self.out_features, "bias": self.bias is not None}
        return {**sizes, "form": self.form}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) to (..., outputs)."""
        return nn.functional.linear(inputs, _dequantise(self.levels, self.scale), self.bias)

    def to_linear(self) -> nn.Linear:
        """Return a plain linear that computes the same."""
        made = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        made.weight = nn.Parameter(_dequantise(self.levels, self.scale.detach()))
        if self.bias is not None:
            made.bias = self.bias
        return made


class LevelEmbedding(nn.Module):
    """An embedding whose rows are levels times a scale each; what is said of the linear's weight holds here."""

    kind: ClassVar[str] = "level_embedding"
    levels: torch.Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, *, form: Form, padding_idx: int | None = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.form = num_embeddings, embedding_dim, form
        self.padding_idx = padding_idx
        self.scale = nn.Parameter(torch.ones(num_embeddings))
        _add_levels(self, num_embeddings, embedding_dim)

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding, form: Form) -> LevelEmbedding:
        """Bring a trained table [rows, width] to levels."""
        sizes = (embedding.num_embeddings, embedding.embedding_dim)
        made = cls(*sizes, form=form, padding_idx=embedding.padding_idx)
        _fill(made, embedding.weight)
        return made

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> Self:
        """Make one with no weights yet, from what :meth:`describe` gave."""
        rows, width, padding = int(described["rows"]), int(described["width"]), described["padding"]
        return cls(rows, width, form=_read_form(described), padding_idx=padding)

    def describe(self) -> dict[str, Any]:
        """Return its sizes and which levels there are, plain data."""
        sizes = {"rows": self.num_embeddings, "width": self.embedding_dim, "padding": self.padding_idx}
        return {**sizes, "form": self.form}

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Map ids (...) to rows (..., width)."""
        return _dequantise(self.levels[ids], self.scale[ids])

    def to_embedding(self) -> nn.Embedding:
        """Return a plain embedding that gives the same rows."""
        rows = _dequantise(self.levels, self.scale.detach())
        return nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=self.padding_idx)


def use_levels(model: nn.Module, names: Iterable[str], form: Form) -> None:
    """Replace the named linears and embeddings of ``model``.

    Raises:
        ValueError: a name is neither.
    """
    for name in names:
        module = model.get_submodule(name)
        if isinstance(module, nn.Linear):
            made: nn.Module = LevelLinear.from_linear(module, form)
        elif isinstance(module, nn.Embedding):
            made = LevelEmbedding.from_embedding(module, form)
        else:
            raise ValueError(f"'{name}' is a {type(module).__name__}, not a Linear or an Embedding")
        model.set_submodule(name, made.train(module.training))


def spell_out(model: nn.Module) -> nn.Module:
    """Replace every module of levels in ``model`` by a plain one that computes the same; return ``model``."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LevelLinear):
            model.set_submodule(name, module.to_linear().train(module.training))
        elif isinstance(module, LevelEmbedding):
            model.set_submodule(name, module.to_embedding().train(module.training))
    return model


def _add_levels(module: LevelLinear | LevelEmbedding, rows: int, width: int) -> None:
    module.register_buffer("levels", torch.ones(rows, width, dtype=torch.int8))
    module.register_state_dict_post_hook(_pack)
    module.register_load_state_dict_pre_hook(_unpack)


def _fill(module: LevelLinear | LevelEmbedding, rows: torch.Tensor) -> None:
    levels, scale = CHOOSE[module.form](rows.detach())
    with torch.no_grad():
        module.levels.copy_(levels)
        module.scale.copy_(scale)


def _pack(module: Any, state: dict[str, torch.Tensor], prefix: str, _metadata: object) -> None:  # noqa: ANN401 - a hook
    levels = state.pop(f"{prefix}levels").cpu().numpy()
    state[f"{prefix}codes"] = torch.from_numpy(pack_levels(levels, BITS[module.form]))


def _unpack(module: Any, state: dict[str, torch.Tensor], prefix: str, *_: object) -> None:  # noqa: ANN401 - a hook
    codes = state.pop(f"{prefix}codes", None)
    if codes is not None:
        width = module.levels.shape[1]
        state[f"{prefix}levels"] = torch.from_numpy(unpack_levels(codes.numpy(), BITS[module.form], width))


def _dequantise(levels: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return levels.to(scale.dtype) * scale.unsqueeze(-1)


def _read_form(described: Mapping[str, Any]) -> Form:
    form: Form
    for form in BITS:
        if form == described["form"]:
            return form
    raise ValueError(f"unknown levels '{described['form']}'")
