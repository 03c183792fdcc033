"""Convolutions and feed-forwards in parts: a gate says which of them a row needs, and what no row needs is not run.

In: a convolution, or the two linears of a feed-forward laid out like BERT's. Out: modules in their place that compute
the same where every part is wanted. Imports torch.

For one row only its own parts are computed, for a batch those that any row wants; what a row did not want is zero for
it, so its answer does not depend on the rows beside it. A part keeps its weights as a layer of its own: nothing is
gathered at run time, and each part is one ``If`` of a traced graph.

Channels by the input: Gao et al., "Dynamic Channel Pruning: Feature Boosting and Suppression", ICLR 2019
(arXiv:1810.05331).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import nn

from compression.gates.row_gates import RowGate, draw_choices
from compression.gates.run_where import run_where
from runtimes.errors import UnsupportedModel


class _Parts(nn.Module):
    """A gate over parts; ``probability`` [rows, parts] is that of the last forward pass while the gate learns."""

    def __init__(self, gate: RowGate, threshold: float) -> None:
        super().__init__()
        self.gate, self.threshold = gate, threshold
        self.probability: torch.Tensor | None = None

    @property
    def draws(self) -> bool:
        """Whether choices are drawn, and everything is computed: while the gate learns."""
        return self.training and self.gate.learns

    def choose(self, seen: torch.Tensor) -> torch.Tensor:
        """Return which parts each row wants, [rows, parts]: bool, or while it learns drawn numbers with gradients."""
        scores: torch.Tensor = self.gate(seen) - self.threshold
        if not self.draws:
            return scores > 0
        self.probability = torch.sigmoid(scores)
        return draw_choices(scores)


class GatedConv2d(_Parts):
    """A convolution whose output channels come in parts; the gate sees the mean of each input channel."""

    kind: ClassVar[str] = "gated_conv2d"

    def __init__(self, parts: Sequence[nn.Conv2d], gate: RowGate, *, threshold: float = 0.0) -> None:
        super().__init__(gate, threshold)
        self.parts = nn.ModuleList(parts)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, gate: RowGate) -> GatedConv2d:
        """Divide the output channels into as many parts as the gate has outputs, in their order.

        Raises:
            UnsupportedModel: it is grouped, pads otherwise than with so many zeros, or has fewer channels than parts.
        """
        if conv.groups != 1 or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise UnsupportedModel(
                "the convolution is grouped or pads in another way than with a number of zeros",
                where="layers",
                cure="leave it out: layers = [...]",
            )
        sizes = _divide(conv.out_channels, gate.outputs)
        shape, biased = _describe_shape(conv), conv.bias is not None
        made = cls([_make_conv(conv.in_channels, size, shape, bias=biased) for size in sizes], gate)
        with torch.no_grad():
            _copy_rows(conv.weight, [part.weight for part in made._list()])
            if conv.bias is not None:
                _copy_rows(conv.bias, [part.bias for part in made._list() if part.bias is not None])
        return made

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> Self:
        """Make one with no weights yet, from what :meth:`describe` gave."""
        inputs, bias = int(described["inputs"]), bool(described["bias"])
        parts = [_make_conv(inputs, int(outputs), described, bias=bias) for outputs in described["outputs"]]
        return cls(parts, RowGate(inputs, len(parts)), threshold=float(described["threshold"]))

    def describe(self) -> dict[str, Any]:
        """Return its sizes, plain data; ``outputs`` are the channels of each part."""
        first, outputs = self._list()[0], [part.out_channels for part in self._list()]
        sizes = {"inputs": first.in_channels, "outputs": outputs, "bias": first.bias is not None}
        return {**sizes, **_describe_shape(first), "threshold": self.threshold}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map [rows, channels, height, width] as the convolution does; channels that a row does not want are 0."""
        chosen = self.choose(inputs.mean(dim=(2, 3)))
        return torch.cat([self._run(place, chosen[:, place], inputs) for place in range(len(self.parts))], dim=1)

    def _run(self, place: int, wanted: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        part = self._list()[place]

        def run(wanted: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = part(inputs)
            return made * wanted[:, None, None, None].to(made.dtype)

        def skip(_wanted: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
            height, width = _measure_output(part, inputs.shape[2], 0), _measure_output(part, inputs.shape[3], 1)
            return inputs.new_zeros((inputs.shape[0], part.out_channels, height, width))

        return run(wanted, inputs) if self.draws else run_where(wanted, run, skip, (wanted, inputs))

    def _list(self) -> list[nn.Conv2d]:
        return [part for part in self.parts if isinstance(part, nn.Conv2d)]


class NeuronGroup(nn.Module):
    """Some neurons of a feed-forward: the rows of its first linear, the columns of its second."""

    def __init__(self, width: int, neurons: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, neurons)
        self.second = nn.Linear(neurons, outputs, bias=False)


class GatedFeedForward(_Parts):
    """Both linears of a feed-forward and what is between them, in groups of neurons; the gate sees the first token.

    It stands where ``intermediate`` did; what came after it, an :class:`Absorbed`, passes its result on.
    """

    kind: ClassVar[str] = "gated_feed_forward"

    def __init__(
        self, activation: nn.Module, groups: Sequence[NeuronGroup], gate: RowGate, *, threshold: float = 0.0
    ) -> None:
        super().__init__(gate, threshold)
        self.intermediate_act_fn = activation
        self.groups = nn.ModuleList(groups)
        self.bias = nn.Parameter(torch.zeros(groups[0].second.out_features))

    @classmethod
    def from_linears(
        cls, first: nn.Linear, activation: nn.Module, second: nn.Linear, gate: RowGate
    ) -> GatedFeedForward:
        """Divide the neurons into as many groups as the gate has outputs, in their order."""
        sizes = _divide(first.out_features, gate.outputs)
        made = cls(activation, [NeuronGroup(first.in_features, size, second.out_features) for size in sizes], gate)
        with torch.no_grad():
            _copy_rows(first.weight, [group.first.weight for group in made._list()])
            _copy_rows(first.bias, [group.first.bias for group in made._list()])
            for group, columns in zip(made._list(), second.weight.split(sizes, dim=1), strict=True):
                group.second.weight.copy_(columns)
            made.bias.copy_(second.bias)
        return made

    @classmethod
    def wrap(cls, module: nn.Module, described: Mapping[str, Any]) -> Self:
        """Take the activation of ``module``, an ``intermediate``; the weights are yet to be loaded."""
        width, outputs = int(described["width"]), int(described["outputs"])
        groups = [NeuronGroup(width, int(size), outputs) for size in described["neurons"]]
        gate = RowGate(width, len(groups))
        activation = module.get_submodule("intermediate_act_fn")
        return cls(activation, groups, gate, threshold=float(described["threshold"]))

    def describe(self) -> dict[str, Any]:
        """Return its sizes, plain data; ``neurons`` are those of each group."""
        first = self._list()[0]
        neurons = [group.first.out_features for group in self._list()]
        sizes = {"width": first.first.in_features, "outputs": first.second.out_features}
        return {**sizes, "neurons": neurons, "threshold": self.threshold}

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map [rows, tokens, width] to [rows, tokens, outputs]."""
        chosen = self.choose(hidden_states[:, 0])
        total = self._run(0, chosen[:, 0], hidden_states)
        for place in range(1, len(self.groups)):
            total = total + self._run(place, chosen[:, place], hidden_states)
        return total + self.bias

    def _run(self, place: int, wanted: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        group = self._list()[place]

        def run(wanted: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = group.second(self.intermediate_act_fn(group.first(hidden)))
            return made * wanted[:, None, None].to(made.dtype)

        def skip(_wanted: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
            return hidden.new_zeros((hidden.shape[0], hidden.shape[1], group.second.out_features))

        return run(wanted, hidden) if self.draws else run_where(wanted, run, skip, (wanted, hidden))

    def _list(self) -> list[NeuronGroup]:
        return [group for group in self.groups if isinstance(group, NeuronGroup)]


class Absorbed(nn.Module):
    """Stands where a linear was that the module before it computes now."""

    kind: ClassVar[str] = "absorbed"

    @classmethod
    def from_description(cls, _described: Mapping[str, Any]) -> Self:
        """Make one."""
        return cls()

    def describe(self) -> dict[str, Any]:
        """Return nothing: there is nothing to say."""
        return {}

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return what it is given."""
        return hidden_states


def _divide(count: int, parts: int) -> list[int]:
    """Return sizes of parts that differ by no more than 1."""
    if parts > count:
        raise UnsupportedModel(
            f"{count} channels cannot be divided into {parts} parts", where="parts", cure=f"give at most {count}"
        )
    return [count // parts + (place < count % parts) for place in range(parts)]


def _describe_shape(conv: nn.Conv2d) -> dict[str, Any]:
    return {name: list(getattr(conv, name)) for name in ("kernel_size", "stride", "padding", "dilation")}


def _make_conv(inputs: int, outputs: int, shape: Mapping[str, Any], *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(
        inputs,
        outputs,
        _read_pair(shape["kernel_size"]),
        stride=_read_pair(shape["stride"]),
        padding=_read_pair(shape["padding"]),
        dilation=_read_pair(shape["dilation"]),
        bias=bias,
    )


def _read_pair(pair: Sequence[int]) -> tuple[int, int]:
    return int(pair[0]), int(pair[1])


def _copy_rows(whole: torch.Tensor, parts: Sequence[torch.Tensor]) -> None:
    for part, rows in zip(parts, whole.split([len(part) for part in parts]), strict=True):
        part.copy_(rows)


def _measure_output(conv: nn.Conv2d, size: int, axis: int) -> int:
    padding = conv.padding[axis]
    assert isinstance(padding, int)
    reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
    return (size + 2 * padding - reach - 1) // conv.stride[axis] + 1
