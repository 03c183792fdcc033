"""What every runtime offers. Stable: a runtime is one module that satisfies these two protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from runtimes.artifact import Artifact, TensorSpec

Tensors = Mapping[str, NDArray[np.generic]]


@runtime_checkable
class Session(Protocol):
    """An open artifact. ``thread_safe`` says whether several threads may run it at once."""

    thread_safe: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run once. Raises DataError for a missing, unknown, wrongly typed or wrongly shaped input."""
        ...

    def prepare(self, feeds: Tensors) -> Callable[[], object]:
        """Check the feeds once and return the bare call, for timing: what it returns is the runtime's own form.

        Raises what :meth:`run` raises for feeds that do not fit; the call raises what the runtime raises.
        """
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

    def why_cannot_build(self) -> str | None:
        """Return None where :meth:`build` works on this machine, else the reason and the cure.

        Where plans are made for another machine, as TensorRT-RTX's are, building works where running does not.
        """
        ...

    def build(self, model: Path, out: Path) -> Artifact:
        """Turn ``model`` into this runtime's artifact at ``out`` (for most: verify, copy, describe)."""
        ...

    def open(self, artifact: Artifact) -> Session:
        """Load the artifact. Raises CorruptArtifact or MissingDependency, never falls back silently."""
        ...
