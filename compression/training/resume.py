"""What a training needs to go on after a kill as if nothing had happened, in one file that is whole or not there.

In: modules, an optimizer and hooks. Out: ``<name>.state.safetensors``, its numbers in the header. No pickle.
Imports torch and safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from runtimes.atomic import write_bytes
from runtimes.errors import CorruptArtifact

_RANDOM = "random"
_UNUSABLE = (SafetensorError, OSError, KeyError, ValueError, RuntimeError)


class Keeper(Protocol):
    """What has tensors of its own to keep: a hook of a training."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what must be kept."""
        ...

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take back what :meth:`tensors` gave."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Learners:
    """All that changes while training: modules by name, the optimizer of their parameters, and the hooks."""

    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    keepers: Sequence[Keeper] = ()


def write_state(path: Path, learners: Learners, numbers: Mapping[str, Any]) -> None:
    """Write everything, torch's random state included, beside ``path`` and rename; ``numbers`` are plain JSON data.

    Raises:
        OutputError: no room; the state written before is untouched.
    """
    tensors = {f"{_RANDOM}": torch.get_rng_state()}
    for name, tensor in _list_module_tensors(learners.modules).items():
        tensors[f"module/{name}"] = tensor
    for index, state in learners.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer/{index}/{key}": value for key, value in state.items()})
    for place, keeper in enumerate(learners.keepers):
        tensors.update({f"hook/{place}/{name}": tensor for name, tensor in keeper.tensors().items()})
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata={"numbers": json.dumps(dict(numbers))}))


def read_state(path: Path, learners: Learners) -> dict[str, Any] | None:
    """Put everything back in place and return the numbers; None where nothing was kept.

    Raises:
        CorruptArtifact: the file is damaged or is of another model.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
        _restore(learners, tensors)
    except _UNUSABLE as error:
        raise _refuse(path, error) from error
    return read_numbers(path)


def read_numbers(path: Path) -> dict[str, Any]:
    """Return the numbers of a kept state alone.

    Raises:
        CorruptArtifact: the file is damaged.
    """
    try:
        with safe_open(str(path), framework="pt") as stored:
            numbers: dict[str, Any] = json.loads(stored.metadata()["numbers"])
    except _UNUSABLE as error:
        raise _refuse(path, error) from error
    return numbers


def _refuse(path: Path, error: Exception) -> CorruptArtifact:
    return CorruptArtifact(
        f"the kept state cannot be used: {error}", where=str(path), cure="remove it; the step then starts again"
    )


def _restore(learners: Learners, tensors: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in _list_module_tensors(learners.modules).items():
            tensor.copy_(tensors[f"module/{name}"])
    states: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            states.setdefault(int(index), {})[key] = tensor
    groups = learners.optimizer.state_dict()["param_groups"]
    learners.optimizer.load_state_dict({"state": states, "param_groups": groups})
    for place, keeper in enumerate(learners.keepers):
        mark = f"hook/{place}/"
        keeper.load_tensors({name.removeprefix(mark): it for name, it in tensors.items() if name.startswith(mark)})
    torch.set_rng_state(tensors[_RANDOM])


def _list_module_tensors(modules: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Return every parameter and buffer once, tied ones under their first name."""
    found: dict[str, torch.Tensor] = {}
    for place, module in modules.items():
        found.update({f"{place}/{name}": tensor for name, tensor in module.named_parameters()})
        found.update({f"{place}/{name}": tensor for name, tensor in module.named_buffers()})
    return found
