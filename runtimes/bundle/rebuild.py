"""How a plan is built again on the device: what stands in ``bundle.json`` as ``rebuild.options``, written and read.

In: the record of a plan, or options of a build. Out: plain JSON, and back what to build with. GPUs are not in it: the
plan is for the one it is built on. Imports no TensorRT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtimes.bundle.strict_json import Fields, corrupt, read_choice, read_text
from runtimes.trt.library import LIBRARIES, LibraryName
from runtimes.trt.options import BuildOptions, Expectation
from runtimes.trt.profiles import Profile, restore_profiles
from runtimes.trt.record import PlanRecord

# An axis in TensorRT is counted in signed 32-bit numbers.
_MAX_AXIS = 2**31 - 1
_MAX_WORKSPACE_BYTES = 1 << 50
_MAX_LEVEL = 5
_SPARSE, _STREAMED = "sparse", "weight-streaming"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding:
    """What to build with: the package that is preferred, and its options, :class:`Expectation` among them."""

    library: LibraryName
    build: BuildOptions


def describe_build(library: LibraryName, build: BuildOptions) -> dict[str, Any]:
    """Return ``rebuild.options`` of a plan that is yet to be built.

    Where the plan is for (``sms``, ``hardware``), whether it is portable and where its weights are stored is left
    out: it is built where it runs.
    """
    flags = {_SPARSE: build.sparse, _STREAMED: build.weight_streaming}
    return {
        "library": library,
        "profiles": [{name: list(size) for name, size in profile.corners().items()} for profile in build.profiles],
        "flags": [name for name, is_set in flags.items() if is_set],
        "workspace_bytes": build.workspace_bytes,
        "optimization_level": build.optimization_level,
        "expected": {"int8": list(build.expected.int8), "sparse": list(build.expected.sparse)},
    }


def describe_rebuild(record: PlanRecord) -> dict[str, Any]:
    """Return ``rebuild.options`` for another plan of the same graph, as this one was built."""
    build = BuildOptions(
        profiles=restore_profiles(record.profiles, record.inputs),
        sparse="SPARSE_WEIGHTS" in record.flags,
        weight_streaming="WEIGHT_STREAMING" in record.flags,
        workspace_bytes=record.settings.get("workspace_bytes"),
        optimization_level=record.settings.get("optimization_level"),
        expected=record.expected,
    )
    return describe_build(record.library, build)


def read_rebuild(options: Mapping[str, Any], where: str = "rebuild.options") -> Rebuilding:
    """Read ``rebuild.options``.

    Raises:
        CorruptArtifact: a field is missing, unknown, of another type or out of range.
    """
    fields = Fields(dict(options), where)
    library = fields.nested("library", read_choice(LIBRARIES))
    profiles = fields.items("profiles", _read_profile)
    flags = fields.items("flags", read_choice((_SPARSE, _STREAMED)))
    build = BuildOptions(
        profiles=profiles,
        sparse=_SPARSE in flags,
        weight_streaming=_STREAMED in flags,
        workspace_bytes=fields.optional("workspace_bytes", lambda key: fields.integer(key, 1, _MAX_WORKSPACE_BYTES)),
        optimization_level=fields.optional("optimization_level", lambda key: fields.integer(key, 0, _MAX_LEVEL)),
        expected=fields.nested("expected", _read_expected),
    )
    fields.close()
    return Rebuilding(library=library, build=build)


def _read_profile(value: object, where: str) -> Profile:
    fields = Fields(value, where)
    low, middle, high = (fields.items(corner, _read_size) for corner in ("min", "opt", "max"))
    fields.close()
    if {len(low), len(middle), len(high)} != {2}:
        raise corrupt("each shape has a batch and a sequence", where)
    if any(not a <= b <= c for a, b, c in zip(low, middle, high, strict=True)):
        raise corrupt("it does not go from small to large", where)
    return Profile(min=(low[0], low[1]), opt=(middle[0], middle[1]), max=(high[0], high[1]))


def _read_size(value: object, where: str) -> int:
    if type(value) is not int or not 1 <= value <= _MAX_AXIS:
        raise corrupt(f"{value!r} is no size"[:200], where)
    return value


def _read_expected(value: object, where: str) -> Expectation:
    fields = Fields(value, where)
    expected = Expectation(int8=fields.items("int8", read_text), sparse=fields.items("sparse", read_text))
    fields.close()
    return expected
