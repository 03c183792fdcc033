"""``stepdown installed``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from exporter.cli.install import add_root, explain_kept
from exporter.cli.outcome import Outcome, format_bytes, format_table

if TYPE_CHECKING:
    from exporter.progress import Progress
    from runtimes.bundle.root import InstalledVersion

SUMMARY = "List the installed bundles and their versions, or drop those that are no longer used."
EXAMPLE = "stepdown installed --root /opt/models --collect"
EXTRA = "device"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_root(parser)
    parser.add_argument(
        "--collect", action="store_true", help="first drop all versions but the current and the previous one of each"
    )


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """List what is installed."""
    from runtimes.bundle.install import collect_garbage
    from runtimes.bundle.root import list_installed

    dropped: list[str] = []
    if arguments.collect:
        for name in sorted({version.name for version in list_installed(arguments.root)}):
            progress.step(f"dropping old versions of {name}")
            dropped += [f"{name} {one}" for one in collect_garbage(arguments.root, name)]
    found = list_installed(arguments.root)
    headers = ("name", "version", "id", "size", "signed", "")
    table = format_table(headers, [_describe(version) for version in found]) if found else "nothing is installed"
    return Outcome(
        document={"installed": [asdict(version) for version in found], "dropped": dropped},
        text="\n".join([table, *(f"dropped {one}" for one in dropped)]),
        notes=tuple(explain_kept(found)) if arguments.collect else (),
    )


def _describe(version: InstalledVersion) -> tuple[str, ...]:
    state = "current" if version.is_current else "previous" if version.is_previous else ""
    if version.damage is not None:
        return (version.name, "-", version.id, "-", "-", f"{state} DAMAGED: {version.damage}".strip())
    return (
        version.name,
        str(version.version) if version.version is not None else "-",
        version.id,
        format_bytes(version.size_bytes),
        "yes" if version.is_signed else "no",
        state,
    )
