"""The packing job: exported directories in, a bundle out, whole or not at all.

In: :class:`~exporter.packing.options.PackOptions`. Out: a file (or the folder of an OCI layout), the same bytes for the
same input, whatever the clock, the user, the locale or the folders are. Must not import torch.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from exporter.packing.blobs import Blobs
from exporter.packing.describe import TOKENIZER, describe_bundle
from exporter.packing.draft import Draft
from exporter.packing.elf import sort_kernels
from exporter.packing.exports import Export, check_lengths, read_exports
from exporter.packing.licence import choose_licence
from exporter.packing.match import Match, match_devices
from exporter.packing.onnxruntime_draft import draft_onnxruntime
from exporter.packing.options import PackOptions, PackResult
from exporter.packing.probe import ProbeFiles, make_probe
from exporter.packing.sbom import check_licence
from exporter.packing.tensorrt_draft import draft_tensorrt
from exporter.packing.write import Packed, locate_signature, write_bundle
from exporter.progress import Progress
from runtimes.bundle.names import NAME
from runtimes.bundle.signature import sign
from runtimes.errors import UsageError

_ID_DIGITS = 16


def pack(options: PackOptions, progress: Progress) -> PackResult:
    """Check, probe and write.

    Raises:
        UsageError: an option is wrong, the output exists, or the exports are of different models or lengths.
        CorruptArtifact: an export is damaged, or does not fit its device.
        MissingDependency: a package of stepdown[pack] or stepdown[sign] is missing, of stepdown[generate] for what
            generates text, or kernels that a model needs.
        OutputError: no room, or no permission; a previous output is untouched.
    """
    _check_options(options)
    progress.step("verifying what was exported")
    exports = read_exports(options.exports)
    if options.max_length is None:
        check_lengths(exports)
    licence, remarks = choose_licence(options.licence, exports)
    options = replace(options, licence=licence)
    matches, kernels = match_devices(exports, options.devices), sort_kernels(options.kernels)
    with tempfile.TemporaryDirectory() as work:
        drafts = tuple(
            draft_tensorrt(match) if match.runtime == "tensorrt" else draft_onnxruntime(match, kernels, Path(work))
            for match in matches
        )
        probes = []
        for draft in drafts:
            progress.step(f"probing {draft.match.name}")
            probes.append(_make_probe(draft))
        blobs = Blobs()
        description = describe_bundle(options, drafts, probes, blobs)
        progress.step(f"writing {options.output}")
        head = description.to_bytes()
        packed = Packed(
            description=description,
            blobs=blobs,
            signatures=sign(head, options.keys) if options.keys else None,
            profiles=[match.profile for match in matches],
        )
        sha256, size_bytes = write_bundle(options, packed)
    return PackResult(
        output=options.output,
        signature=locate_signature(options.output) if options.detached else None,
        sha256=sha256,
        size_bytes=size_bytes,
        bundle_id=hashlib.sha256(head).hexdigest()[:_ID_DIGITS],
        description=description,
        signed=bool(options.keys),
        notes=(*_collect_notes(exports, matches, drafts, options), *remarks),
    )


def _make_probe(draft: Draft) -> ProbeFiles:
    if draft.texts is None:
        return make_probe(draft, draft.match.export.top.get(TOKENIZER))
    # onnxruntime-genai is of use to what generates alone.
    from exporter.packing.token_probe import make_token_probe

    return make_token_probe(draft, draft.texts)


def _check_options(options: PackOptions) -> None:
    """Refuse early what would be refused after the work."""
    if not options.exports:
        raise UsageError("nothing to pack", cure="give what `export -o` wrote")
    for path in (options.output, *([locate_signature(options.output)] if options.format == "tar" else [])):
        if path.exists() and not options.force:
            raise UsageError("the output exists", where=str(path), cure="pass --force to replace it")
    if options.name is not None and NAME.fullmatch(options.name) is None:
        raise UsageError(
            f"{options.name!r} cannot be a folder everywhere",
            where="--name",
            cure="use letters, digits, dots and dashes",
        )
    if options.detached and (not options.keys or options.format == "oci"):
        raise UsageError(
            "a detached signature needs a key and an archive", where="--detached", cure="add --sign, use --format tar"
        )
    if options.policy is not None and (not options.policy or len(set(options.policy)) != len(options.policy)):
        raise UsageError("a policy names each step once, and at least one", where="--policy", cure="plan,rebuild,cpu")
    check_licence(options.licence)
    if options.keys:
        sign(b"", options.keys)  # keys that cannot sign are refused here


def _collect_notes(
    exports: Sequence[Export], matches: Sequence[Match], drafts: Sequence[Draft], options: PackOptions
) -> tuple[str, ...]:
    notes = [note for draft in drafts for note in draft.notes]
    for export in exports:
        packed = {match.runtime for match in matches if match.export is export}
        left = sorted(export.manifest.artifacts.keys() - packed)
        notes += [f"{export.directory}: its model for {name} is left out: no device asked for it" for name in left]
        notes += [f"{export.directory}: {name} is left out: the manifest does not name it" for name in export.ignored]
    if len({export.manifest.source.get("sha256") for export in exports}) > 1:
        notes.append("the variants were made from different weights: their answers may differ more than rounding does")
    taken = {path for draft in drafts for path in draft.files.values()}
    notes += [
        f"{library} is left out: no variant has a use for it" for library in options.kernels if library not in taken
    ]
    if not options.keys:
        notes.append("the bundle is unsigned: nobody vouches for it")
    return tuple(notes)
