"""Drafts the variant of a model for TensorRT: the plan where it is the device's, and what it is built from there.

In: a match. Out: :class:`~exporter.packing.draft.Draft`. Needs no TensorRT and no GPU. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.packing.draft import Draft, broken_entry, check_profile, describe_entry, make_requirements, misfit
from exporter.packing.graph_facts import read_graph_facts
from exporter.packing.match import Match
from runtimes.artifact import TensorSpec
from runtimes.bundle.description import Rebuild
from runtimes.bundle.onnx_safety import check_onnx
from runtimes.bundle.profiles import DeviceProfile
from runtimes.bundle.rebuild import describe_build, describe_rebuild, read_rebuild
from runtimes.ort import describe_onnx
from runtimes.trt.fit import describe_gpus, runs_on
from runtimes.trt.library import LibraryName
from runtimes.trt.options import BuildOptions
from runtimes.trt.profiles import Profile, Ranges, fit_profiles, is_dynamic, resolve_profiles
from runtimes.trt.record import PlanRecord, describe_plan, verify_plan
from runtimes.versions import count_version

GRAPH = "model.onnx"


def draft_tensorrt(match: Match) -> Draft:
    """Draft the variant. A plan for another GPU or package is left out: the device builds its own from the graph.

    Raises:
        CorruptArtifact: the manifest does not hold together, the plan is damaged, or the model does not fit the device.
    """
    entry = match.export.find_entry(match.runtime)
    if "provider" in entry:
        raise misfit(
            match,
            f"it runs on {entry['provider']} of ONNX Runtime",
            "export it where TensorRT is faster, or --lower-only",
        )
    path = match.export.directory / entry["path"]
    graph = describe_onnx(path.parent / GRAPH)
    files = {found.relative_to(path.parent).as_posix(): found for found in graph.files}
    if check_onnx(path.parent, GRAPH, tuple(files)).kernels:
        raise misfit(match, "it has operators of stepdown's, which TensorRT lacks", "export it for TensorRT again")
    why_not, record = _read_plan(match, path)
    described, version = graph, None
    if record is not None and not why_not:
        described, version = describe_plan(path, record), record.version
        files |= {found.name: found for found in described.files}
    library = _read_library(match.profile)
    options = (
        describe_rebuild(record) if record is not None else describe_build(library, _choose_build(match, graph.inputs))
    )
    draft = Draft(
        match=match,
        model=described.path.name,
        files=files,
        specs=graph.inputs,
        artifact=describe_entry(match, described),
        requires=make_requirements(match, graph.size_bytes(), tensorrt=version),
        rebuild=Rebuild(graph=GRAPH, options={**options, "library": library}),
        ranges=_list_ranges(options, graph.inputs),
        graph=graph.path,
        facts=read_graph_facts(graph.path),
        exact=False,
        notes=(f"{match.name}: {why_not}; the graph goes in, and the device builds its plan",) if why_not else (),
    )
    check_profile(draft)
    return draft


def _read_plan(match: Match, path: Path) -> tuple[str, PlanRecord | None]:
    """Return why the device cannot take the plan (empty: it can), and the plan's record; None where there is none."""
    if path.suffix != ".plan":
        return "", None
    record, profile = verify_plan(path), match.profile
    if record.library != profile.tensorrt_library:
        return f"the plan is of {record.library}, and the device has {profile.tensorrt_library}", record
    if not runs_on(record.library, record.sms, record.hardware, _read_sm(profile)):
        return f"the plan is for {describe_gpus(record)}, and the device is sm{profile.sm}", record
    if count_version(record.version) < count_version((profile.tensorrt or "").removeprefix(">=")):
        return f"the plan is of {record.library} {record.version}, and the device has {profile.tensorrt}", record
    return "", record


def _choose_build(match: Match, inputs: tuple[TensorSpec, ...]) -> BuildOptions:
    """Return how a plan is built of a graph that none was built of: as the export was asked to."""
    manifest = match.export.manifest
    try:
        asked: Mapping[str, Any] = manifest.recipe.get("tensorrt", {}).get("build", {})
        profiles = tuple(
            Profile(**{corner: tuple(size) for corner, size in told.items()}) for told in asked.get("profiles", ())
        )
        return BuildOptions(
            profiles=fit_profiles(profiles, manifest.source.get("max_length"), inputs),
            sparse=bool(asked.get("sparse", False)),
            workspace_bytes=asked.get("workspace_bytes"),
            optimization_level=asked.get("optimization_level"),
        )
    except (TypeError, AttributeError, ValueError) as error:
        raise broken_entry(match, error) from error


def _list_ranges(options: Mapping[str, Any], inputs: tuple[TensorSpec, ...]) -> tuple[Ranges, ...]:
    """Return the shapes that a plan of these options takes; none where the graph's are fixed."""
    if not is_dynamic(inputs):
        return ()
    return resolve_profiles(read_rebuild(options).build.profiles, inputs)


def _read_library(profile: DeviceProfile) -> LibraryName:
    assert profile.tensorrt_library is not None, "a profile with TensorRT names its package"
    return profile.tensorrt_library


def _read_sm(profile: DeviceProfile) -> int:
    assert profile.sm is not None, "a profile with TensorRT names its GPU"
    return int(profile.sm)
