"""What every runtime offers. Stable: a runtime is one module that satisfies these two protocols."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from runtimes.artifact import Artifact, TensorSpec

Tensors = Mapping[str, NDArray[np.generic]]


@runtime_checkable
class Session(Protocol):
    """An open artifact. ``run`` is thread-safe only where the runtime says so."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run once. Raises DataError for a missing, unknown, wrongly typed or wrongly shaped input."""
        ...

    def close(self) -> None:
        """Release the runtime's resources; a closed session must not be run."""
        ...


@runtime_checkable
class Runtime(Protocol):
    """One way to execute models. The constructor takes the runtime's own frozen options, nothing else."""

    name: str

    def why_unavailable(self) -> str | None:
        """Return None where this runtime works on this machine, else the reason and the cure."""
        ...

    def build(self, model: Path, out: Path) -> Artifact:
        """Turn ``model`` into this runtime's artifact at ``out`` (for most: verify, copy, describe)."""
        ...

    def open(self, artifact: Artifact) -> Session:
        """Load the artifact. Raises CorruptArtifact or MissingDependency, never falls back silently."""
        ...
