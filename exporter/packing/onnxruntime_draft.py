"""Drafts the variant of a model for ONNX Runtime's CPU: its files, its kernels, and whether it fits the device.

In: a match, and libraries of kernels for other architectures. Out: :class:`~exporter.packing.draft.Draft`. Must not
import a runtime.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from exporter.packing.draft import (
    KERNELS,
    Draft,
    broken_entry,
    check_profile,
    describe_entry,
    make_requirements,
    misfit,
)
from exporter.packing.elf import read_architecture
from exporter.packing.graph_facts import read_graph_facts
from exporter.packing.match import Match
from exporter.packing.weights import split_weights
from runtimes.artifact import hash_file
from runtimes.bundle.onnx_safety import check_onnx
from runtimes.errors import CorruptArtifact, MissingDependency, UsageError
from runtimes.generation.layout import CONFIG_NAME, GENAI_PACKAGE, OLDEST_GENAI, read_layout
from runtimes.isa import Isa, may_run_on, named
from runtimes.ort import describe_onnx
from runtimes.ort_providers import CPU
from runtimes.sparse.library import KernelBuild, library_path
from runtimes.versions import count_version

# What is asked of a device's memory for the cache of a model that generates: a prompt, and an answer of 256 tokens.
_CACHED_TOKENS = 1024
# Of a sum, as much as tells two builds apart.
_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What the manifest says of a model for ONNX Runtime."""

    isa: str
    exact: bool
    provider: str
    oldest: str
    kernels: KernelBuild | None


def draft_onnxruntime(match: Match, kernels: Mapping[str, Path], work: Path) -> Draft:
    """Draft the variant.

    Args:
        match: A model for ONNX Runtime, and its device.
        kernels: Libraries of sparse kernels by architecture; this installation's serves its own.
        work: A folder that stays until the bundle is written.

    Raises:
        CorruptArtifact: the manifest does not hold together, the model does not fit the device, or has operators that
            no bundle may bring.
        UsageError: it needs kernels, and none is given for the device's architecture.
        MissingDependency: it needs this installation's kernels, and they were not built.
    """
    entry = match.export.find_entry(match.runtime)
    said = _read_entry(match, entry)
    _check_device(match, said)
    exported = match.export.directory / entry["path"]
    check_onnx(exported.parent, exported.name, match.export.list_beside(exported))
    model = split_weights(exported, work / hash_file(exported))
    described = describe_onnx(model)
    files = {path.relative_to(model.parent).as_posix(): path for path in described.files}
    artifact = describe_entry(match, described)
    requires = make_requirements(match, described.size_bytes(), onnxruntime=f">={said.oldest}")
    if match.export.generates:
        files[CONFIG_NAME] = _place_config(exported.parent, model.parent)
        artifact["requires"] = {**artifact["requires"], GENAI_PACKAGE: f">={OLDEST_GENAI}"}
        requires = replace(requires, memory_bytes=requires.memory_bytes + _measure_cache(model.parent))
    notes: tuple[str, ...] = ()
    if check_onnx(model.parent, model.name, tuple(files)).kernels:
        if said.kernels is None:
            raise broken_entry(match, "the model has sparse layers, and no kernels are named")
        library = _choose_kernels(match.profile.arch, kernels)
        packed = KernelBuild(version=said.kernels.version, sha256=hash_file(library))
        files[KERNELS], artifact["sparse_kernels"] = library, asdict(packed)
        notes = _compare_builds(match, said.kernels, packed)
    draft = Draft(
        match=match,
        model=model.name,
        files=files,
        specs=described.inputs,
        artifact=artifact,
        requires=requires,
        texts=exported.parent if match.export.generates else None,
        graph=model,
        facts=read_graph_facts(model),
        exact=said.exact,
        notes=notes,
    )
    check_profile(draft)
    return draft


def _place_config(exported: Path, folder: Path) -> Path:
    """Return what onnxruntime-genai must know of a model, beside the graph that is packed."""
    source, place = exported / CONFIG_NAME, folder / CONFIG_NAME
    if not source.is_file():
        cure = "export it again: this one cannot generate text"
        raise CorruptArtifact(f"there is no {CONFIG_NAME} beside the graph", where=str(exported), cure=cure)
    if not place.is_file():
        shutil.copyfile(source, place)
    return place


def _measure_cache(folder: Path) -> int:
    """Return the bytes of the cache of one text, of a length as texts have them."""
    layout = read_layout(folder)
    return layout.cache.bytes_for(1, min(layout.context, _CACHED_TOKENS))


def _read_entry(match: Match, entry: Mapping[str, Any]) -> _Said:
    try:
        kernels = KernelBuild(**entry["sparse_kernels"]) if "sparse_kernels" in entry else None
        said = _Said(
            isa=entry["isa"],
            exact=entry["exact_on_any_cpu"],
            provider=entry["provider"],
            oldest=entry["requires"]["onnxruntime"].removeprefix(">="),
            kernels=kernels,
        )
        named(said.isa)
        count_version(said.oldest)
        if not isinstance(said.exact, bool):
            raise TypeError(f"exact_on_any_cpu is {said.exact!r}")
    except (KeyError, TypeError, AttributeError, ValueError, UsageError) as error:
        raise broken_entry(match, error) from error
    return said


def _check_device(match: Match, said: _Said) -> None:
    profile = match.profile
    if said.provider != CPU:
        raise misfit(match, f"it runs on {said.provider}", "export it where ONNX Runtime has its CPU alone")
    # A profile without a level may be the plainest CPU of its architecture.
    device = named(profile.isa) if profile.isa is not None else Isa(arch=profile.arch, features=frozenset())
    if not said.exact and not may_run_on(said.isa, device):
        raise misfit(
            match,
            f"it was made for {said.isa}; there its answers would differ",
            f"export it with --for-isa {profile.isa or 'avx2'}, or choose a device that is at least {said.isa}",
        )
    held = (profile.onnxruntime or "").removeprefix(">=")
    if count_version(held) < count_version(said.oldest):
        raise misfit(
            match,
            f"it needs ONNX Runtime {said.oldest}, and the device may have {held}",
            "update ONNX Runtime there, and the profile's onnxruntime",
        )


def _choose_kernels(arch: str, given: Mapping[str, Path]) -> Path:
    """Return the library for an architecture: a given one before this installation's."""
    if arch in given:
        return given[arch]
    try:
        own = library_path()
    except MissingDependency as error:
        raise MissingDependency(error.what, where=error.where, cure=f"{error.cure}; or give --kernels") from error
    if read_architecture(own) == arch:
        return own
    raise UsageError(
        f"the model has sparse layers, and there are no kernels for {arch}",
        where="--kernels",
        cure=f"build libstepdown_sparse.so for {arch} (docs/bundle.md says how) and give it with --kernels",
    )


def _compare_builds(match: Match, timed: KernelBuild, packed: KernelBuild) -> tuple[str, ...]:
    if packed.sha256 == timed.sha256:
        return ()
    return (
        f"{match.name}: the sparse kernels that go in (sha256 {packed.sha256[:_SHOWN]}) are another build than those "
        f"the model was timed with ({timed.sha256[:_SHOWN]}): the same answers, perhaps not as fast",
    )
