"""Puts a bundle's description together: what is shared, what is a variant's own, and what was said of it all.

In: drafts and probes. Out: a :class:`~runtimes.bundle.description.BundleDescription` and the blobs it lists. Must not
import a runtime.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from exporter.packing.blobs import Blobs
from exporter.packing.draft import Draft
from exporter.packing.exports import Export
from exporter.packing.match import Match
from exporter.packing.options import PackOptions
from exporter.packing.probe import INPUTS, OUTPUTS, ProbeFiles
from exporter.packing.provenance import describe_provenance, make_finite
from exporter.packing.sbom import SBOM, Contents, make_sbom
from runtimes.bundle.description import BundleDescription, FallbackStep, Probe, Variant
from runtimes.bundle.names import NAME
from runtimes.bundle.strict_json import dump_json
from runtimes.errors import CorruptArtifact, UsageError

TOKENIZER = "tokenizer.json"
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9._-]+")


def describe_bundle(
    options: PackOptions, drafts: Sequence[Draft], probes: Sequence[ProbeFiles], blobs: Blobs
) -> BundleDescription:
    """Add every file to ``blobs`` and return the description of them.

    Raises:
        UsageError: the policy asks for what the bundle does not hold.
    """
    variants = tuple(_make_variant(draft, probe, blobs) for draft, probe in zip(drafts, probes, strict=True))
    first = drafts[0].match.export
    provenance = describe_provenance([draft.match for draft in drafts])
    description = BundleDescription(
        name=options.name or _choose_name(first),
        version=options.version,
        tool={"stepdown": version("stepdown")},
        task=first.task,
        labels=first.labels,
        max_length=options.max_length or first.max_length,
        blobs={},
        files={path: blobs.add(_read_strict(source)) for path, source in _place_tops(drafts).items()},
        variants=variants,
        policy=_choose_policy(options.policy, variants),
        provenance=provenance,
        licence=options.licence,
    )
    contents = Contents(
        name=description.name,
        version=description.version,
        tool=description.tool["stepdown"],
        licence=description.licence,
        source=provenance["source"],
        files=description.placed_files(),
        sizes=blobs.sizes(),
        variants=variants,
    )
    files = {**description.files, SBOM: blobs.add(make_sbom(contents))}
    return replace(description, files=dict(sorted(files.items())), blobs=blobs.sizes())


def _place_tops(drafts: Sequence[Draft]) -> dict[str, Path]:
    """Return where the files at the top of the exports go: once what all have alike, else apart by a variant's name."""
    first_of: dict[int, Match] = {}
    for draft in drafts:
        first_of.setdefault(id(draft.match.export), draft.match)
    placed: dict[str, Path] = {}
    for match in first_of.values():
        for name, path in match.export.top.items():
            alike = all(_holds(other.export, name, path) for other in first_of.values())
            placed[name if alike else f"exports/{match.name}/{name}"] = path
    return placed


def _read_strict(path: Path) -> Path | bytes:
    """Return a file as it is, but JSON with infinities (an open bound of a measurement) with null in their place."""
    if path.suffix != ".json" or path.name == TOKENIZER:
        return path
    try:
        told = json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptArtifact(f"it is no JSON: {error}", where=str(path), cure="export it again") from error
    finite = make_finite(told)
    return path if finite == told else dump_json(finite)


def _holds(export: Export, name: str, path: Path) -> bool:
    return name in export.top and export.top[name].read_bytes() == path.read_bytes()


def _make_variant(draft: Draft, probe: ProbeFiles, blobs: Blobs) -> Variant:
    sources: dict[str, Path | bytes] = {**draft.files, INPUTS: probe.inputs, OUTPUTS: probe.outputs}
    return Variant(
        name=draft.match.name,
        runtime=draft.match.runtime,
        model=draft.model,
        files={path: blobs.add(sources[path]) for path in sorted(sources)},
        artifact=make_finite(draft.artifact),
        device=draft.match.profile.to_json(),
        requires=draft.requires,
        rebuild=draft.rebuild,
        probe=Probe(inputs=INPUTS, outputs=OUTPUTS, tolerance=probe.tolerance, made_with=probe.made_with),
    )


def _choose_name(export: Export) -> str:
    """Return what the export was called, whatever its folder is called by now."""
    told = export.manifest.recipe.get("output") or export.manifest.source.get("reference") or ""
    name = _UNNAMEABLE.sub("-", Path(str(told)).name).strip("-._")[:64].rstrip("-._")
    return name if NAME.fullmatch(name) is not None else "model"


def _choose_policy(asked: tuple[FallbackStep, ...] | None, variants: Sequence[Variant]) -> tuple[FallbackStep, ...]:
    """Return the steps that the bundle can take, or those that were asked for."""
    possible: dict[FallbackStep, bool] = {
        "plan": any(variant.requires.tensorrt is not None for variant in variants),
        "rebuild": any(variant.rebuild is not None for variant in variants),
        "cpu": any(variant.runtime == "onnxruntime" for variant in variants),
    }
    held = tuple(step for step, has in possible.items() if has)
    if asked is None:
        return held
    missing = [step for step in asked if step not in held]
    if missing:
        raise UsageError(
            f"the bundle has nothing for '{missing[0]}'; it has {', '.join(held)}",
            where="--policy",
            cure="leave it out, or pack an export with that target too",
        )
    return asked
