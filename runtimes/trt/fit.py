"""Whether a plan fits this machine: the package, its version and the GPU, each with what to do where it does not.

In: a record, the installed library and the GPU's compute capability. Out: nothing, or an error. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.errors import CorruptArtifact
from runtimes.trt.library import Library, LibraryName
from runtimes.trt.options import Hardware
from runtimes.trt.record import PlanRecord
from runtimes.trt.targets import DATA_CENTER_CURE, is_data_center

_AMPERE = 80


def require_version(record: PlanRecord, library: Library, *, where: str) -> None:
    """Refuse a plan of another version of its package.

    Raises:
        CorruptArtifact: it was built by another version and is not version-compatible, or by a later one.
    """
    found, built = _count(library.version), _count(record.version)
    if found == built or (record.version_compatible and found >= built):
        return
    package = "tensorrt-rtx-cu13" if record.library == "tensorrt-rtx" else "tensorrt"
    raise CorruptArtifact(
        f"the plan is of {record.library} {record.version}, this is {library.version}",
        where=where,
        cure=f"build it again with stepdown export, or pip install {package}=={record.version}",
    )


def require_gpu(record: PlanRecord, sm: int, *, where: str) -> None:
    """Refuse a plan without kernels for this GPU.

    Raises:
        CorruptArtifact: the GPU's compute capability is none of the plan's.
    """
    if runs_on(record.library, record.sms, record.hardware, sm):
        return
    cure = (
        find_cure(sm)
        if record.library == "tensorrt-rtx"
        else "build it on this GPU; with --hardware ampere-plus it runs on Ampere and later"
    )
    raise CorruptArtifact(f"the plan is for {name_sms(record.sms)}; this GPU is sm{sm}", where=where, cure=cure)


def find_cure(sm: int) -> str:
    """Return how to get a plan for a GPU that those of TensorRT-RTX are not for."""
    return DATA_CENTER_CURE if is_data_center(sm) else f"export with --sm {sm}"


def name_sms(sms: Sequence[int]) -> str:
    """``(80, 89)`` -> ``sm80, sm89``."""
    return ", ".join(f"sm{sm}" for sm in sms)


def runs_on(library: LibraryName, sms: Sequence[int], hardware: Hardware, sm: int) -> bool:
    """Whether plans that ``library`` builds for ``sms`` have kernels for the GPU ``sm``.

    A TensorRT-RTX plan for 12.0 holds for later 12.x too; an enterprise one for its own compute capability, and beyond
    where it was built so.
    """
    if sm in sms:
        return True
    if library == "tensorrt-rtx":
        return sm // 10 == 12 and 120 in sms
    return hardware == "ampere-plus" and sm >= _AMPERE


def describe_gpus(record: PlanRecord) -> str:
    """Say which GPUs a plan runs on."""
    if record.hardware == "ampere-plus":
        return "NVIDIA GPUs of compute capability 8.0 and later"
    named = [f"{sm // 10}.{sm % 10}" for sm in record.sms]
    if record.library == "tensorrt-rtx" and 120 in record.sms:
        named[record.sms.index(120)] = "12.0 and later 12.x"
    return f"NVIDIA GPUs of compute capability {', '.join(named)}"


def _count(version: str) -> tuple[int, ...]:
    """``1.7.1.116`` -> (1, 7, 1): whether another build of one version will do is left to TensorRT, which says so."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
