"""What a machine offers a bundle: this one, asked, or the plainest that a device profile stands for.

In: nothing, or a profile. Out: a :class:`Machine`. The runtimes are imported inside the functions that ask them for
their versions. Must not import anything outside ``runtimes``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtimes.bundle.description import Variant
from runtimes.bundle.profiles import DeviceProfile
from runtimes.errors import MissingDependency
from runtimes.generation.layout import GENAI_PACKAGE
from runtimes.isa import Isa, Level, detect, named
from runtimes.trt.library import LibraryName

# What a container may use, where it is told (cgroup v2, Documentation/admin-guide/cgroup-v2.rst).
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is there.

    Attributes:
        name: ``this machine``, or a profile's.
        arch: As Linux names it.
        level: The best integer arithmetic of the CPU.
        onnxruntime: Its version; None where it is not installed.
        tensorrt: The version of each TensorRT package that is there; empty where nobody asked.
        sm: The GPU's compute capability without the dot; None without a GPU.
        features: Of the CPU, as in :mod:`runtimes.isa`; None stands for what a plain CPU of its level has.
        genai: The version of onnxruntime-genai; None where it is not installed, or nobody asked.
        memory_bytes: Of the machine, or of the container; None where nobody knows.
    """

    name: str
    arch: str
    level: Level
    onnxruntime: str | None
    memory_bytes: int | None
    tensorrt: Mapping[LibraryName, str] = field(default_factory=dict)
    sm: int | None = None
    genai: str | None = None
    features: frozenset[str] | None = None

    @property
    def isa(self) -> Isa:
        """What its CPU can do."""
        return named(self.level) if self.features is None else Isa(arch=self.arch, features=self.features)


def detect_machine_for(variants: Sequence[Variant]) -> Machine:
    """Look at this machine for what any of the variants may need."""
    return detect_machine(
        gpu=any(variant.runtime == "tensorrt" for variant in variants),
        generation=any(variant.generates for variant in variants),
    )


def detect_machine(*, gpu: bool, generation: bool = False) -> Machine:
    """Look at this machine.

    Args:
        gpu: Whether to look for TensorRT and a GPU, which takes seconds.
        generation: Whether to look for onnxruntime-genai; it is not loaded.
    """
    isa = detect()
    return Machine(
        name="this machine",
        arch=isa.arch,
        level=isa.level,
        features=isa.features,
        onnxruntime=_find_onnxruntime(),
        memory_bytes=find_memory(_CGROUP_LIMIT),
        tensorrt=_find_tensorrt() if gpu else {},
        sm=_find_sm() if gpu else None,
        genai=_find_genai() if generation else None,
    )


def describe_device(profile: DeviceProfile) -> Machine:
    """Return the plainest machine that a profile stands for: its oldest runtimes and its least arithmetic."""
    library = profile.tensorrt_library
    return Machine(
        name=profile.name,
        arch=profile.arch,
        level=profile.isa or "baseline",
        onnxruntime=_strip(profile.onnxruntime),
        memory_bytes=profile.memory_bytes,
        tensorrt={library: _strip(profile.tensorrt) or ""} if library is not None else {},
        sm=int(profile.sm) if profile.sm is not None else None,
        genai=_strip(profile.onnxruntime_genai),
    )


def find_memory(cgroup_limit: Path) -> int | None:
    """Return the bytes of memory that this process may use, as far as the system says."""
    try:
        physical: int | None = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # Windows has no sysconf
        physical = None
    limit = cgroup_limit.read_text(encoding="ascii").strip() if cgroup_limit.is_file() else "max"
    known = [size for size in (physical, int(limit) if limit.isdigit() else None) if size]
    return min(known, default=None)


def _strip(version: str | None) -> str | None:
    return version.removeprefix(">=") if version is not None else None


def _find_onnxruntime() -> str | None:
    from runtimes.ort_errors import import_onnxruntime

    try:
        return str(import_onnxruntime().__version__)
    except MissingDependency:
        return None


def _find_genai() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(GENAI_PACKAGE)
    except PackageNotFoundError:
        return None


def _find_tensorrt() -> dict[LibraryName, str]:
    from runtimes.trt.library import find_libraries

    return {library.name: library.version for library in find_libraries()}


def _find_sm() -> int | None:
    from runtimes.trt.device import read_compute_capability

    try:
        return read_compute_capability()
    except MissingDependency:
        return None
