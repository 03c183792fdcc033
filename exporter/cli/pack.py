"""``stepdown pack``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

from exporter.cli.outcome import Outcome, format_bytes, format_table
from exporter.cli.parsing import add_output, parse_positive, refuse_existing, require_folder
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from exporter.packing.options import PackResult
    from exporter.progress import Progress
    from runtimes.bundle.description import FallbackStep

SUMMARY = "Put exported models, tokenizer, kernels and provenance into one bundle that a device can verify."
EXAMPLE = "stepdown pack out/minilm -o minilm.stepdown.tar.gz --device x86-64-vnni --version 3 --sign key.pem"
EXTRA = "pack"

_STEPS = ("plan", "rebuild", "cpu")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "exports",
        metavar="DIR",
        type=Path,
        nargs="+",
        help="what `export -o` wrote; several: one a --device; or an OCI layout, of which the archive is made again",
    )
    add_output(parser, "the bundle")
    parser.add_argument(
        "--device",
        metavar="NAME",
        action="append",
        default=[],
        help="a profile by name or as a .toml file (repeatable; the plainest CPU with the same answers)",
    )
    parser.add_argument("--name", metavar="NAME", help="what it is called on the device (as the export was)")
    parser.add_argument(
        "--version", metavar="N", type=parse_positive, help="grows with each release; older ones refused"
    )
    parser.add_argument("--max-length", metavar="N", type=parse_positive, help="tokens kept of a text (as exported)")
    parser.add_argument("--licence", metavar="SPDX", default="unknown", help="of the source model, such as Apache-2.0")
    parser.add_argument(
        "--kernels",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="a libstepdown_sparse.so for another architecture than this one's (repeatable)",
    )
    parser.add_argument(
        "--policy", metavar="STEPS", type=_parse_policy, help="what a device may fall back to: plan,rebuild,cpu (all)"
    )
    parser.add_argument(
        "--sign", metavar="KEY", type=Path, action="append", default=[], help="an Ed25519 key as PEM (repeatable)"
    )
    parser.add_argument("--detached", action="store_true", help="write the signature beside the bundle, as PATH.sig")
    parser.add_argument("--format", metavar="NAME", choices=("tar", "oci"), default="tar", help="tar, oci (tar)")


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Pack."""
    require_folder(arguments.output)
    from runtimes.bundle.oci_layout import is_layout

    if is_layout(arguments.exports[0]):
        return _archive(arguments, progress)
    from exporter.packing.options import PackOptions
    from exporter.packing.pack import pack

    result = pack(
        PackOptions(
            exports=tuple(arguments.exports),
            output=arguments.output,
            devices=tuple(arguments.device),
            name=arguments.name,
            version=arguments.version,
            max_length=arguments.max_length,
            licence=arguments.licence,
            kernels=tuple(arguments.kernels),
            policy=arguments.policy,
            keys=tuple(arguments.sign),
            detached=arguments.detached,
            format=arguments.format,
            force=arguments.force,
        ),
        progress,
    )
    return Outcome(document=_make_document(result), text=_describe(result), notes=result.notes)


def _archive(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Make the archive of a layout; everything else about it is decided."""
    from runtimes.artifact import hash_file
    from runtimes.bundle.oci_layout import archive_layout

    layout, output = arguments.exports[0], arguments.output
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    free = {"exports", "output", "force"}
    options = {
        name: value for name, value in vars(arguments).items() if name in vars(parser.parse_args(["", "-o", ""]))
    }
    decided = [name for name, value in options.items() if name not in free and value != parser.get_default(name)]
    if len(arguments.exports) > 1 or decided:
        raise UsageError(
            "a layout holds a bundle that is packed already",
            where=f"--{decided[0].replace('_', '-')}" if decided else str(arguments.exports[1]),
            cure="give the layout and -o alone",
        )
    refuse_existing(output, force=arguments.force)
    progress.step(f"writing {output}")
    description = archive_layout(layout, output)
    sha256, size = hash_file(output), output.stat().st_size
    return Outcome(
        document={"output": str(output), "sha256": sha256, "bytes": size, "name": description.name},
        text=f"{output}: {description.name}, {format_bytes(size)}\nsha256 {sha256}",
        notes=(f"`stepdown verify {output}` says whether it may be used",),
    )


def _parse_policy(text: str) -> tuple[FallbackStep, ...]:
    steps = tuple(re.split(r"\s*,\s*", text.strip()))
    unknown = [step for step in steps if step not in _STEPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(_STEPS)}")
    return cast("tuple[FallbackStep, ...]", steps)


def _make_document(result: PackResult) -> dict[str, object]:
    description = result.description
    return {
        "output": str(result.output),
        "signature": str(result.signature) if result.signature is not None else None,
        "sha256": result.sha256,
        "bytes": result.size_bytes,
        "id": result.bundle_id,
        "name": description.name,
        "version": description.version,
        "signed": result.signed,
        "policy": list(description.policy),
        "variants": [
            {
                "name": variant.name,
                "runtime": variant.runtime,
                "arch": variant.requires.arch,
                "isa": variant.requires.isa,
                "sm": variant.requires.sm,
                "memory_bytes": variant.requires.memory_bytes,
                "bytes": sum(description.blobs[sha256] for sha256 in variant.files.values()),
            }
            for variant in description.variants
        ],
        "notes": list(result.notes),
    }


def _describe(result: PackResult) -> str:
    description = result.description
    rows = [
        (
            variant.name,
            variant.runtime,
            variant.requires.isa or "any",
            variant.requires.sm or "-",
            format_bytes(sum(description.blobs[sha256] for sha256 in variant.files.values())),
            format_bytes(variant.requires.memory_bytes),
        )
        for variant in description.variants
    ]
    numbered = f" version {description.version}" if description.version is not None else ""
    return "\n".join(
        [
            f"{result.output}: {description.name}{numbered}, {format_bytes(result.size_bytes)}, id {result.bundle_id}",
            f"sha256 {result.sha256}",
            "",
            format_table(("variant", "runtime", "CPU", "GPU", "files", "memory"), rows),
        ]
    )
