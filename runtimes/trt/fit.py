"""Whether a plan fits this machine: the package, its version and the GPU, each with what to do where it does not.

In: a record, the installed library and the GPU's compute capability. Out: nothing, or an error. Pure.
"""

from __future__ import annotations

from runtimes.errors import CorruptArtifact
from runtimes.trt.library import Library
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
    if runs_on(record, sm):
        return
    made_for = ", ".join(f"sm{one}" for one in record.sms)
    raise CorruptArtifact(f"the plan is for {made_for}; this GPU is sm{sm}", where=where, cure=_find_cure(record, sm))


def _find_cure(record: PlanRecord, sm: int) -> str:
    if record.library == "tensorrt":
        return "build it on this GPU; with --hardware ampere-plus it runs on Ampere and later"
    return DATA_CENTER_CURE if is_data_center(sm) else f"export with --sm {sm}"


def runs_on(record: PlanRecord, sm: int) -> bool:
    """Whether a plan has kernels for a GPU.

    A TensorRT-RTX plan for 12.0 holds for later 12.x too; an enterprise one for its own compute capability, and beyond
    where it was built so.
    """
    if sm in record.sms:
        return True
    if record.library == "tensorrt-rtx":
        return sm // 10 == 12 and 120 in record.sms
    return record.hardware == "ampere-plus" and sm >= _AMPERE


def _count(version: str) -> tuple[int, ...]:
    """``1.7.1.116`` -> (1, 7, 1): whether another build of one version will do is left to TensorRT, which says so."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
