"""A variant before its probe is made: which files it has, what it needs, and by which graph it is probed.

In: a match of an artifact with a device. Out: :class:`Draft`, checked against the device's profile. Must not import a
runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from exporter.packing.graph_facts import GraphFacts
from exporter.packing.match import Match
from runtimes.artifact import MANIFEST_NAME, Artifact, TensorSpec
from runtimes.bundle.description import Rebuild, Requirements
from runtimes.errors import CorruptArtifact
from runtimes.generation.layout import GENAI_PACKAGE, OLDEST_GENAI
from runtimes.trt.profiles import Ranges
from runtimes.versions import count_version

KERNELS = "kernels/libstepdown_sparse.so"
# Python, numpy, tokenizers and ONNX Runtime are 56 MB before a model is opened (Linux, ONNX Runtime 1.31).
_BASE_BYTES = 64_000_000
# MiniLM in INT8 takes 2.3 times its file while it is loaded: the file, the weights, and what kernels pack of them.
_LOADING_FACTOR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is known of a variant before it ran.

    Attributes:
        match: The artifact and the device.
        model: The model among ``files``.
        files: Where each file is had from, by its path in the variant.
        specs: What it takes.
        artifact: What the bundle says of it.
        requires: What a machine must have.
        rebuild: How to make the plan on the device.
        ranges: Which shapes the plan takes; empty: any.
        graph: The ONNX file whose answers the probe keeps.
        facts: What that graph is made of.
        texts: Where the tokenizer and the chat template lie of a model that generates text; None for any other.
        exact: Whether the answers are the same on any CPU.
        notes: What is worth knowing, one sentence each.
    """

    match: Match
    model: str
    files: Mapping[str, Path]
    specs: tuple[TensorSpec, ...]
    artifact: Mapping[str, Any]
    requires: Requirements
    graph: Path
    facts: GraphFacts
    exact: bool
    texts: Path | None = None
    rebuild: Rebuild | None = None
    ranges: tuple[Ranges, ...] = ()
    notes: tuple[str, ...] = field(default=())


def describe_entry(match: Match, described: Artifact) -> dict[str, Any]:
    """Return what the manifest says of an artifact, without its path and with its real inputs and outputs."""
    entry = {key: value for key, value in match.export.find_entry(match.runtime).items() if key != "path"}
    specs = {"inputs": _list_specs(described.inputs), "outputs": _list_specs(described.outputs)}
    return {**entry, "kind": described.kind, "sha256": described.sha256, **specs}


def make_requirements(
    match: Match, model_bytes: int, *, onnxruntime: str | None = None, tensorrt: str | None = None
) -> Requirements:
    """Return what a machine needs, as the profile says and the model's size tells."""
    profile, on_gpu = match.profile, match.runtime == "tensorrt"
    return Requirements(
        arch=profile.arch,
        isa=profile.isa,
        onnxruntime=onnxruntime,
        memory_bytes=_BASE_BYTES + _LOADING_FACTOR * model_bytes,
        sm=profile.sm if on_gpu else None,
        tensorrt=tensorrt,
    )


def misfit(match: Match, what: str, cure: str) -> CorruptArtifact:
    """Return the error for an artifact that is not for its device."""
    return CorruptArtifact(
        f"it does not fit {match.profile.name}: {what}", where=f"{match.export.directory}:{match.runtime}", cure=cure
    )


def broken_entry(match: Match, why: object) -> CorruptArtifact:
    """Return the error for a manifest that contradicts itself."""
    return CorruptArtifact(
        f"what the manifest says of the artifact does not hold together: {why}",
        where=f"{match.export.directory / MANIFEST_NAME}:artifacts.{match.runtime}",
        cure="export it again",
    )


def check_profile(draft: Draft) -> None:
    """Refuse a variant that its device does not allow or hold.

    Raises:
        CorruptArtifact: it has operators of its own, 16-bit floats or a size that the profile excludes.
    """
    match, profile = draft.match, draft.match.profile
    if KERNELS in draft.files and not profile.custom_ops:
        raise misfit(
            match,
            "it has sparse layers, and the profile allows no operators but the runtime's own",
            "export a model that is not pruned, or allow custom_ops in the profile",
        )
    if draft.facts.float16 and not profile.float16:
        raise misfit(
            match, "it computes in 16-bit floats, which the profile excludes", "export it with --precision fp32 or int8"
        )
    _check_generation(draft)
    needed = draft.requires.memory_bytes
    if profile.memory_bytes is not None and needed > profile.memory_bytes:
        raise misfit(
            match,
            f"it takes about {needed:,} bytes of memory, and the profile has {profile.memory_bytes:,}",
            "compress the model further, or choose a larger device",
        )


def _check_generation(draft: Draft) -> None:
    held = draft.match.profile.onnxruntime_genai
    is_enough = held is not None and count_version(held.removeprefix(">=")) >= count_version(OLDEST_GENAI)
    if draft.texts is None or is_enough:
        return
    raise misfit(
        draft.match,
        f"it generates text, which takes {GENAI_PACKAGE} {OLDEST_GENAI} or later, and the profile has {held or 'none'}",
        f'install stepdown[generate] there, and say onnxruntime_genai = ">={OLDEST_GENAI}" in the profile',
    )


def _list_specs(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [{**asdict(spec), "shape": list(spec.shape)} for spec in specs]
