"""Which GPUs a plan is built for.

In: a library and the generations a user names. Out: compute capabilities (``89`` is 8.9), or what to do instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.errors import MissingDependency, UsageError
from runtimes.trt.device import read_compute_capability
from runtimes.trt.library import Library, LibraryName, choose_library
from runtimes.trt.options import DEFAULT_SMS

# H100, H200, B200, B300: TensorRT-RTX names no such target (1.7.1 knows 75, 80, 86, 89, 120, 121).
_DATA_CENTER_SMS = {90, 100, 103}
DATA_CENTER_CURE = (
    "for an H100, H200 or B200 build there with stepdown[tensorrt], without --sm; it takes the same graph"
)


def choose_builder(wanted: LibraryName | None, sms: Sequence[int]) -> Library:
    """Return the package to build with, where GPUs may be named; see :func:`runtimes.trt.library.choose_library`.

    Raises:
        MissingDependency: none is installed, or none that is builds on this machine.
    """
    try:
        return choose_library(wanted, for_sms=bool(sms))
    except MissingDependency as error:
        # Installing the package that takes --sm would not help.
        if any(map(is_data_center, sms)):
            raise MissingDependency(error.what, where="--sm", cure=DATA_CENTER_CURE) from error
        raise


def choose_sms(library: Library, asked: Sequence[int]) -> tuple[int, ...]:
    """Return the compute capabilities to build for: those asked for, else the usual ones, else this GPU's.

    Raises:
        UsageError: the library builds for the GPU it runs on only.
        MissingDependency: it cannot target one that was asked for, or there is no GPU to build on.
    """
    if not library.can_target_sms():
        if asked:
            raise UsageError(
                f"{library.title} builds for the GPU it runs on only",
                where="--sm",
                cure="leave --sm out, or use --trt-library tensorrt-rtx",
            )
        return (read_compute_capability(),)
    known = library.list_sms()
    missing = [sm for sm in asked if sm not in known]
    if missing:
        raise MissingDependency(
            f"{library.title} cannot target sm{missing[0]}; it knows {', '.join(f'sm{sm}' for sm in known)}",
            where="--sm",
            cure=DATA_CENTER_CURE
            if any(map(is_data_center, missing))
            else "choose among these, or update tensorrt-rtx",
        )
    return tuple(sorted(set(asked or (sm for sm in DEFAULT_SMS if sm in known))))


def is_data_center(sm: int) -> bool:
    """Whether TensorRT-RTX leaves this generation to TensorRT."""
    return sm in _DATA_CENTER_SMS
