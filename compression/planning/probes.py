"""One change at a time, to one layer: what is tried to see which methods which layers can bear.

In: a model, some batches to look at. Out: :class:`Probe` objects, each an edit of a copy. Imports torch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import nn

from compression.factors.low_rank import Decomposition, decompose, make_low_rank
from compression.models.inputs import run_batches
from compression.models.layers import find_stack, select_linears
from compression.models.moments import Moments, collect_moments
from compression.models.units import UnitGroup, list_head_groups, list_neuron_groups
from compression.planning.sensitivity import Change, Ruler
from compression.pruning.patterns import PATTERNS
from compression.pruning.second_order import fit_pruned
from compression.rounding.fake_quantise import Bits, fake_quantise
from compression.samples import Batch
from compression.structure.choose_units import choose_units
from compression.structure.drop_layers import drop_layers
from compression.structure.importance import score_by_activation
from compression.structure.prune_structure import prune_units
from runtimes.errors import UnsupportedModel

SPARSITIES = (0.5, 0.7, 0.9)
UNIT_SPARSITIES = (0.25, 0.5)
#: Of the full rank: two factors of a square weight are smaller below a half.
RANK_SHARES = (0.25, 0.4)
BITS: tuple[Bits, ...] = (8, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """``edit`` does ``method`` at ``setting`` to ``layer``, in place; ``names`` are the linears it is about, if any."""

    method: str
    setting: str
    layer: str
    edit: Callable[[nn.Module], None]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """What came of a probe."""

    method: str
    setting: str
    layer: str
    change: Change
    names: tuple[str, ...] = ()


def measure_probes(
    model: nn.Module, probes: Sequence[Probe], ruler: Ruler, advance: Callable[[int], None]
) -> tuple[Sensitivity, ...]:
    """Carry out each probe on a copy of ``model`` and measure it."""
    found = []
    for probe in probes:
        edited = copy.deepcopy(model)
        probe.edit(edited)
        change = ruler.measure(edited)
        found.append(
            Sensitivity(method=probe.method, setting=probe.setting, layer=probe.layer, change=change, names=probe.names)
        )
        advance(1)
    return tuple(found)


def name_rank(share: float) -> str:
    """Return how the setting of a rank is called."""
    return f"rank {share:.0%}"


def list_probes(model: nn.Module, batches: Sequence[Batch]) -> tuple[Probe, ...]:
    """Return every probe that the model's layers allow; the inputs of its linears are looked at once, here.

    Raises:
        UnsupportedModel: the model has no encoder layers.
    """
    linears = select_linears(model)
    moments = collect_moments(model, list(linears), batches)
    parts = _group_linears(model, list(linears))
    return (
        *_probe_linears(linears, parts, moments, batches),
        *_probe_units(model, moments),
        *_probe_layers(model),
    )


def _group_linears(model: nn.Module, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the linears by part of a layer: its attention and its feed-forward, or its direct parents elsewhere."""
    parts: dict[str, list[str]] = {}
    known = {
        name: f"{group.name}, {'feed-forward' if group.attention is None else 'attention'}"
        for group in _list_groups(model)
        for name in (*(source.path for source in group.sources), group.target)
    }
    for name in names:
        parts.setdefault(known.get(name, name.rpartition(".")[0]), []).append(name)
    return parts


def _list_groups(model: nn.Module) -> list[UnitGroup]:
    found: list[UnitGroup] = []
    for list_groups in (list_head_groups, list_neuron_groups):
        try:
            found += list_groups(model)
        except UnsupportedModel:
            continue  # another architecture: its linears are probed as they are, and no units leave
    return found


def _probe_linears(
    linears: Mapping[str, nn.Linear],
    parts: Mapping[str, list[str]],
    moments: Mapping[str, Moments],
    batches: Sequence[Batch],
) -> Iterator[Probe]:
    decomposed = cache(lambda name: decompose(linears[name], moments[name]))
    for part, names in parts.items():
        for share in SPARSITIES:
            edit: Callable[[nn.Module], None] = partial(_prune, names=names, moments=moments, share=share)
            yield Probe(method="prune", setting=f"{share:.0%} zeros", layer=part, edit=edit)
        for bits in BITS:
            edit = partial(_round, names=names, bits=bits, batch=batches[len(batches) // 2])
            yield Probe(method="quantise", setting=f"{bits} bits", layer=part, edit=edit)
        for share in RANK_SHARES:
            edit = partial(_factorise, names=names, share=share, decomposed=decomposed)
            setting = name_rank(share)
            yield Probe(method="low-rank", setting=setting, layer=part, edit=edit, names=tuple(names))


def _probe_units(model: nn.Module, moments: Mapping[str, Moments]) -> Iterator[Probe]:
    for group in _list_groups(model):
        method = "prune-neurons" if group.attention is None else "prune-heads"
        for share in UNIT_SPARSITIES:
            edit = partial(_remove_units, group=group, moments=moments, share=share)
            yield Probe(method=method, setting=f"{share:.0%} less", layer=group.name, edit=edit)


def _probe_layers(model: nn.Module) -> Iterator[Probe]:
    stack = find_stack(model)
    count = len(list(model.get_submodule(stack).children()))
    for place in range(count if count > 1 else 0):
        keep = [other for other in range(count) if other != place]
        edit = partial(drop_layers, stack=stack, keep=keep)
        yield Probe(method="drop-layers", setting="gone", layer=f"{stack}.{place}", edit=edit)


def _prune(model: nn.Module, *, names: Sequence[str], moments: Mapping[str, Moments], share: float) -> None:
    for name, linear in select_linears(model, names).items():
        fit = fit_pruned(linear.weight.detach(), linear.bias, moments[name], share, PATTERNS["1x1"])
        with torch.no_grad():
            linear.weight.copy_(fit.weight)
            if fit.bias is not None:
                linear.bias.copy_(fit.bias)


def _round(model: nn.Module, *, names: Sequence[str], bits: Bits, batch: Batch) -> None:
    fake_quantise(model, names, run_batches(model, [batch], names) if bits == 8 else None, bits=bits)


def _factorise(
    model: nn.Module, *, names: Sequence[str], share: float, decomposed: Callable[[str], Decomposition]
) -> None:
    for name, linear in select_linears(model, names).items():
        rank = max(1, int(share * min(linear.weight.shape)))
        model.set_submodule(name, make_low_rank(linear, decomposed(name), rank), strict=True)


def _remove_units(model: nn.Module, *, group: UnitGroup, moments: Mapping[str, Moments], share: float) -> None:
    scores = score_by_activation(model, [group], moments)
    kept = choose_units(scores, share, scope="layer")[group.target]
    prune_units(model, group, kept, moments[group.target])
