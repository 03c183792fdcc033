"""Finds the TensorRT packages of this machine and what each can do here.

In: nothing. Out: :class:`Library`, or a reason in words. The one place that imports ``tensorrt`` or ``tensorrt_rtx``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal

from runtimes.errors import MissingDependency
from runtimes.trt.messages import MessageLog, Native, make_logger

LibraryName = Literal["tensorrt", "tensorrt-rtx"]
LIBRARIES: tuple[LibraryName, ...] = ("tensorrt", "tensorrt-rtx")

_MODULES: dict[LibraryName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_TITLES: dict[LibraryName, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
INSTALL_RTX = "pip install 'stepdown[tensorrt-rtx]' (builds without a GPU), or 'stepdown[tensorrt]' where there is one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """An imported TensorRT package. ``module`` is its Python module, asked by feature."""

    name: LibraryName
    module: Native
    version: str

    @property
    def title(self) -> str:
        """What people call it, with its version."""
        return f"{_TITLES[self.name]} {self.version}"

    def can_target_sms(self) -> bool:
        """Whether it builds for named GPUs, and so without one (TensorRT-RTX)."""
        config = self.module.IBuilderConfig
        return hasattr(self.module, "ComputeCapability") and hasattr(config, "set_compute_capability")

    def list_sms(self) -> tuple[int, ...]:
        """The GPU generations that it builds for by name (``89`` is compute capability 8.9); empty for enterprise."""
        if not self.can_target_sms():
            return ()
        names = self.module.ComputeCapability.__members__
        return tuple(sorted(int(name[2:]) for name in names if name.startswith("SM") and name[2:].isdigit()))

    def has_flag(self, flag: str) -> bool:
        """Whether ``BuilderFlag`` has ``flag``; its integer means another thing in another version."""
        return hasattr(self.module.BuilderFlag, flag)

    def can_keep_timings(self) -> bool:
        """Whether a timing cache is of use: TensorRT-RTX has the calls, and they force a query of a GPU."""
        return not self.can_target_sms() and hasattr(self.module.IBuilderConfig, "create_timing_cache")


def open_library(name: LibraryName) -> Library:
    """Import a package.

    Raises:
        MissingDependency: it is not installed, or its shared libraries do not load.
    """
    try:
        module = import_module(_MODULES[name])
    except (ImportError, OSError) as error:  # OSError: the package is there and a library behind it is not
        raise MissingDependency(
            f"{_TITLES[name]} is not installed: {error}", where=_MODULES[name], cure=f"pip install 'stepdown[{name}]'"
        ) from error
    return Library(name=name, module=module, version=str(module.__version__))


def find_libraries() -> tuple[Library, ...]:
    """Return the packages that import here, enterprise first."""
    found = []
    for name in LIBRARIES:
        try:
            found.append(open_library(name))
        except MissingDependency:
            continue
    return tuple(found)


def choose_library(wanted: LibraryName | None, *, for_sms: bool) -> Library:
    """Return the package to build with: the wanted one, else the first that builds here.

    Args:
        wanted: A package by name; None leaves the choice to this function.
        for_sms: Whether GPUs are named, which only TensorRT-RTX builds for.

    Raises:
        MissingDependency: none is installed, or none that is builds on this machine.
    """
    if wanted is not None or for_sms:
        library = open_library(wanted or "tensorrt-rtx")
        reason = why_cannot_build(library)
        if reason is not None:
            raise MissingDependency(reason, where=library.title, cure=_cure(library))
        return library
    reasons = []
    for library in find_libraries():
        reason = why_cannot_build(library)
        if reason is None:
            return library
        reasons.append(f"{library.title}: {reason}")
    if not reasons:
        raise MissingDependency("TensorRT is not installed", cure=INSTALL_RTX)
    raise MissingDependency(
        "no TensorRT here builds a plan", where="; ".join(reasons), cure="install stepdown[tensorrt-rtx], which can"
    )


def why_cannot_build(library: Library) -> str | None:
    """Return None where the package makes a builder on this machine, else why not."""
    return _probe_builder(library.module)


@cache
def _probe_builder(trt: Native) -> str | None:
    """Make a builder. Enterprise TensorRT needs a GPU for it: pybind11 then says that its constructor gave nullptr."""
    log = MessageLog()
    try:
        trt.Builder(make_logger(trt, log))
    except (TypeError, RuntimeError) as error:
        reason = log.first_error() or str(error)
        return f"it makes no builder here, which needs a GPU and its driver: {reason}"
    return None


def _cure(library: Library) -> str:
    if library.can_target_sms():
        return "see `stepdown doctor`"
    return "build on a machine with the GPU, or with --trt-library tensorrt-rtx, which needs none"
