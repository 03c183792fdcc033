"""Does a variant fit a machine: architecture, arithmetic, runtime, GPU, memory, policy; each misfit with its cure.

In: a variant's requirements and a :class:`~runtimes.bundle.machine.Machine`. Out: misfits; none where it fits. Pure:
nothing is loaded and nothing is asked. Must not import anything outside ``runtimes``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runtimes.bundle.description import FallbackStep, Variant
from runtimes.bundle.machine import Machine
from runtimes.generation.layout import GENAI_PACKAGE
from runtimes.isa import LEVELS, may_run_on
from runtimes.trt.fit import runs_on
from runtimes.trt.library import LIBRARIES, LibraryName
from runtimes.trt.record import PlanRecord
from runtimes.versions import count_version

Part = Literal[
    "arch", "isa", "onnxruntime", "onnxruntime-genai", "tensorrt", "tensorrt-version", "plan-version", "gpu",
    "plan-gpu", "memory", "policy",
]  # fmt: skip
# What building the plan anew on the device mends.
_REBUILDABLE: frozenset[Part] = frozenset({"plan-version", "plan-gpu"})

# Of a profile that came with a bundle, and was not checked.
_AT_LEAST = re.compile(r">=([0-9]{1,9}(?:\.[0-9]{1,9}){0,3})")
_PACKAGES: dict[LibraryName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx-cu13"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """One thing that a variant asks and a machine has not.

    Attributes:
        part: Which requirement.
        what: What is wrong, in words.
        expected: What is asked.
        found: What is there.
        cure: What to do about it.
    """

    part: Part
    what: str
    expected: str
    found: str
    cure: str

    @property
    def rebuildable(self) -> bool:
        """Whether building the plan anew on the device mends it."""
        return self.part in _REBUILDABLE


def find_misfits(
    variant: Variant,
    machine: Machine,
    record: PlanRecord | None = None,
    *,
    policy: Sequence[FallbackStep] | None = None,
) -> tuple[Misfit, ...]:
    """Return everything that a variant asks and a machine has not; nothing where it fits.

    Args:
        variant: What is judged.
        machine: What is there.
        record: That of the variant's plan, which knows for which other GPUs and versions it was built as well; None
            takes the plan for those alone that the requirements name.
        policy: The bundle's; None judges the variant alone.
    """
    requires = variant.requires
    if requires.arch != machine.arch:
        # The rest would only repeat it in other words.
        return (
            Misfit(
                part="arch",
                what="it is for another kind of CPU",
                expected=requires.arch,
                found=machine.arch,
                cure=f"pack it with --device for {machine.arch}",
            ),
        )
    runtime = (
        _check_tensorrt(variant, machine, record)
        if variant.runtime == "tensorrt"
        else _check_onnxruntime(variant, machine)
    )
    found = (*_check_arithmetic(variant, machine), *runtime, *_check_memory(variant, machine))
    if policy is None:
        return found
    return (*found, *_check_policy(_list_steps(variant, found, record), policy))


def can_run(variant: Variant, misfits: Sequence[Misfit]) -> bool:
    """Whether a variant runs in spite of misfits: those that building its plan on the device mends."""
    return not misfits or (variant.rebuild is not None and all(misfit.rebuildable for misfit in misfits))


def _list_steps(variant: Variant, misfits: Sequence[Misfit], record: PlanRecord | None) -> tuple[FallbackStep, ...]:
    """Return the steps that would run a variant in spite of its misfits, were they in the policy."""
    if variant.runtime == "onnxruntime":
        return () if misfits else ("cpu",)
    if not all(misfit.rebuildable for misfit in misfits):
        return ()
    # Without its record, a plan may be for more than the requirements name.
    may_open = variant.brings_plan and (not misfits or record is None)
    return (*(("plan",) if may_open else ()), *(("rebuild",) if variant.rebuild is not None else ()))


def _check_policy(steps: Sequence[FallbackStep], policy: Sequence[FallbackStep]) -> Iterator[Misfit]:
    if steps and not set(steps) & set(policy):
        yield Misfit(
            part="policy",
            what="the bundle's policy leaves out what would run it",
            expected=" or ".join(steps),
            found=", ".join(policy),
            cure=f"pack it again with --policy {','.join((*policy, steps[0]))}",
        )


def _check_arithmetic(variant: Variant, machine: Machine) -> Iterator[Misfit]:
    required = variant.requires.isa
    made_for = variant.artifact.get("isa")
    if required is not None and not machine.isa.reaches(required):
        yield _make_arithmetic(required, machine)
    elif isinstance(made_for, str) and not _answers_alike(variant.artifact, made_for, machine):
        # The requirement is a claim; what the export said of the graph's arithmetic is the reason behind it.
        yield _make_arithmetic(made_for, machine)


def _answers_alike(artifact: Any, made_for: str, machine: Machine) -> bool:  # noqa: ANN401 (a mapping of JSON)
    if artifact.get("exact_on_any_cpu") is not False:
        return True
    return made_for in LEVELS and may_run_on(made_for, machine.isa)


def _make_arithmetic(required: str, machine: Machine) -> Misfit:
    # A CPU with AVX-VNNI alone is beyond AVX-512, and has none of it.
    beyond = required in LEVELS and LEVELS.index(required) < LEVELS.index(machine.level)
    return Misfit(
        part="isa",
        what="its answers would differ on such a CPU, or be slow",
        expected=required,
        found=f"{machine.level} without {required}" if beyond else machine.level,
        cure=f"use a variant for {machine.level}: export with --for-isa {machine.level}, and pack that",
    )


def _check_onnxruntime(variant: Variant, machine: Machine) -> Iterator[Misfit]:
    required, found = variant.requires.onnxruntime, machine.onnxruntime
    if found is None:
        yield Misfit(
            part="onnxruntime",
            what="ONNX Runtime is not installed",
            expected=f"onnxruntime {required or ''}".strip(),
            found="none",
            cure="pip install 'stepdown[device]'",
        )
    elif required is not None and count_version(found) < count_version(required.removeprefix(">=")):
        yield Misfit(
            part="onnxruntime",
            what="ONNX Runtime is too old",
            expected=required,
            found=found,
            cure=f"pip install 'onnxruntime{required}'",
        )
    yield from _check_genai(variant, machine)


def _check_genai(variant: Variant, machine: Machine) -> Iterator[Misfit]:
    required, found = variant.oldest_genai, machine.genai
    if required is None:
        return
    if found is None or count_version(found) < count_version(required.removeprefix(">=")):
        yield Misfit(
            part="onnxruntime-genai",
            what=f"{GENAI_PACKAGE} is {'not there' if found is None else 'too old'}, which generates text",
            expected=required,
            found=found or "none",
            cure="pip install 'stepdown[generate]'",
        )


def _check_tensorrt(variant: Variant, machine: Machine, record: PlanRecord | None) -> Iterator[Misfit]:
    library = _read_library(variant)
    version, required, oldest = machine.tensorrt.get(library), variant.requires.tensorrt, _read_oldest(variant)
    package = _PACKAGES[library]
    if version is None:
        cure = f"pip install 'stepdown[device-{library}]', or take the variant for ONNX Runtime"
        yield Misfit(
            part="tensorrt",
            what=f"{package} is not installed",
            expected=f"{package} {required or ''}".strip(),
            found=", ".join(f"{name} {found}" for name, found in machine.tensorrt.items()) or "none",
            cure=cure,
        )
    elif required is not None and not _opens(version, required, record):
        yield Misfit(
            part="plan-version",
            what="the plan is of another version of TensorRT",
            expected=required,
            found=version,
            cure=f"build it anew on the device from the bundled graph, or pip install {package}=={required}",
        )
    elif required is None and oldest is not None and _count(version) < _count(oldest):
        # Of a graph alone nothing was built: the profile says what was judged to take it.
        yield Misfit(
            part="tensorrt-version",
            what=f"{package} is too old to build its plan",
            expected=f">={oldest}",
            found=version,
            cure=f"pip install '{package}>={oldest}', or take the variant for ONNX Runtime",
        )
    yield from _check_gpu(variant, machine, record)


def _check_gpu(variant: Variant, machine: Machine, record: PlanRecord | None) -> Iterator[Misfit]:
    required = variant.requires.sm
    if machine.sm is None:
        yield Misfit(
            part="gpu",
            what="there is no NVIDIA GPU",
            expected=f"sm{required}" if required else "a GPU",
            found="none",
            cure="take the variant for ONNX Runtime",
        )
    elif required is not None and not _has_kernels(int(required), machine.sm, record):
        yield Misfit(
            part="plan-gpu",
            what="the plan is for another GPU",
            expected=f"sm{required}",
            found=f"sm{machine.sm}",
            cure=f"build it anew on the device from the bundled graph, or export with --sm {machine.sm}",
        )


def _check_memory(variant: Variant, machine: Machine) -> Iterator[Misfit]:
    required = variant.requires.memory_bytes
    if machine.memory_bytes is not None and machine.memory_bytes < required:
        yield Misfit(
            part="memory",
            what="there is not enough memory",
            expected=f"{required:,} bytes",
            found=f"{machine.memory_bytes:,} bytes",
            cure="take a smaller variant, or a larger machine",
        )


def _opens(version: str, built: str, record: PlanRecord | None) -> bool:
    """Whether a package opens a plan (:func:`runtimes.trt.fit.require_version` has the last word on opening it)."""
    found, wanted = _count(version), _count(built)
    return found == wanted or (record is not None and record.version_compatible and found >= wanted)


def _has_kernels(required: int, sm: int, record: PlanRecord | None) -> bool:
    return sm == required or (record is not None and runs_on(record.library, record.sms, record.hardware, sm))


def _read_library(variant: Variant) -> LibraryName:
    """Return the package that the profile names; enterprise TensorRT where it names none."""
    return next((known for known in LIBRARIES if known == variant.device.get("tensorrt_library")), "tensorrt")


def _read_oldest(variant: Variant) -> str | None:
    """Return the oldest TensorRT that the profile names, ``10.3`` for ``>=10.3``; None where it names none."""
    found = _AT_LEAST.fullmatch(str(variant.device.get("tensorrt")))
    return found[1] if found is not None else None


def _count(version: str) -> tuple[int, ...]:
    """``1.7.1.116`` -> (1, 7, 1), as in :mod:`runtimes.trt.fit`."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
