"""Which artifact of which export is packed for which device.

In: exports and devices as the user named them. Out: :class:`Match`, one a variant, the most demanding first. Pure but
for reading profiles. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exporter.packing.exports import Export
from runtimes.bundle.description import RuntimeName
from runtimes.bundle.profiles import DeviceProfile, list_profiles, read_profile
from runtimes.errors import CorruptArtifact, UsageError
from runtimes.isa import LEVELS, normalise_arch

# By architecture: the plainest profile, and the plainest whose products do not saturate.
_DEFAULTS = {"x86_64": ("x86-64", "x86-64-vnni"), "aarch64": ("arm64-neon", "arm64-neon")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One artifact for one device; ``name`` is the variant's."""

    export: Export
    runtime: RuntimeName
    profile: DeviceProfile
    name: str


def match_devices(exports: Sequence[Export], devices: Sequence[str]) -> tuple[Match, ...]:
    """Pair exports with devices: one device each, several for one export, or none for the defaults.

    An export with an artifact for each of a profile's runtimes gives a variant for each.

    Raises:
        UsageError: the numbers differ, a profile is not there, two variants have one name, or an export holds nothing
            for its device.
    """
    profiles = [read_profile(device) for device in devices] or [_choose_default(export) for export in exports]
    if len(exports) == 1:
        pairs = [(exports[0], profile) for profile in profiles]
    elif len(exports) == len(profiles):
        pairs = list(zip(exports, profiles, strict=True))
    else:
        raise UsageError(
            f"{len(exports)} exports and {len(profiles)} devices",
            where="--device",
            cure="give one device for each export, in their order, or one export for all devices",
        )
    found = [match for export, profile in pairs for match in _match(export, profile)]
    names = [match.name for match in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two variants for {twice[0]}", where="--device", cure="name each device once")
    return tuple(sorted(found, key=_rank))


def _match(export: Export, profile: DeviceProfile) -> Iterator[Match]:
    held: list[RuntimeName] = [runtime for runtime in profile.runtimes if runtime in export.manifest.artifacts]
    if export.generates:
        # onnxruntime-genai runs on ONNX Runtime; a plan gives logits, and nothing takes tokens by them.
        held = [runtime for runtime in held if runtime == "onnxruntime"]
    if not held:
        held_for = ", ".join(export.manifest.artifacts) or "nothing"
        raise UsageError(
            f"it holds nothing that runs on {profile.name}: it is for {held_for}",
            where=str(export.directory),
            cure=f"export it with --target {_name_target(export, profile)}, or choose another --device",
        )
    for runtime in held:
        beside = runtime == "onnxruntime" and "tensorrt" in profile.runtimes
        yield Match(
            export=export, runtime=runtime, profile=profile, name=f"{profile.name}-cpu" if beside else profile.name
        )


def _name_target(export: Export, profile: DeviceProfile) -> str:
    return "onnxruntime" if export.generates else profile.runtimes[0]


def _choose_default(export: Export) -> DeviceProfile:
    """Return the least demanding CPU that gives the answers of an export."""
    if "onnxruntime" not in export.manifest.artifacts:
        raise UsageError(
            "what device it is for cannot be told from a TensorRT artifact",
            where=str(export.directory),
            cure=f"name it: --device one of {', '.join(list_profiles())}, or a .toml",
        )
    arch = normalise_arch(str(export.manifest.machine.get("arch") or "x86_64"))
    if arch not in _DEFAULTS:
        raise UsageError(f"no profile is known for {arch}", where=str(export.directory), cure="give --device my.toml")
    entry = export.find_entry("onnxruntime")
    if not isinstance(entry.get("exact_on_any_cpu"), bool):
        raise CorruptArtifact(
            "the manifest does not say where its answers are the same",
            where=f"{export.directory}:artifacts.onnxruntime.exact_on_any_cpu",
            cure="export it again",
        )
    plainest, exact = _DEFAULTS[arch]
    return read_profile(plainest if entry["exact_on_any_cpu"] else exact)


def _rank(match: Match) -> tuple[bool, str, int, str]:
    """Order by what is tried first: a GPU before a CPU, the higher level before the lower."""
    level = LEVELS.index(match.profile.isa) if match.profile.isa is not None else -1
    return match.runtime != "tensorrt", match.profile.arch, -level, match.name
