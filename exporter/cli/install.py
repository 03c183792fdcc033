"""``stepdown install``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome
from exporter.cli.parsing import add_host_code
from exporter.cli.trust import add_trust, read_trust

if TYPE_CHECKING:
    from exporter.progress import Progress
    from runtimes.bundle.install import Installed
    from runtimes.bundle.root import InstalledVersion
    from runtimes.bundle.verify import VerifyOptions

SUMMARY = "Put a bundle under a root beside its earlier versions, and switch to it once it is whole."
EXAMPLE = "stepdown install minilm.stepdown.tar.gz --root /opt/models --key release.pub"
EXTRA = "device"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="an archive that `stepdown pack` wrote")
    add_root(parser)
    add_trust(parser)
    add_host_code(parser)
    parser.add_argument("--no-probe", action="store_true", help="do not run the stored inputs first")
    parser.add_argument(
        "--allow-downgrade",
        action="store_true",
        help="also what is older than the current version, or another one of its number",
    )
    parser.add_argument(
        "--for-another-machine", action="store_true", help="also what does not fit this one, as for a disk image"
    )
    parser.add_argument("--collect", action="store_true", help="then drop all versions but this and the previous one")


def add_root(parser: argparse.ArgumentParser) -> None:
    """Declare where installed bundles lie."""
    parser.add_argument(
        "--root", metavar="DIR", type=Path, required=True, help="the folder of installed bundles: DIR/NAME/current"
    )


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Verify the bundle, install it and switch to it."""
    from runtimes.bundle.folder import refuse_folder
    from runtimes.bundle.install import InstallOptions, install
    from runtimes.bundle.verify import VerifyOptions

    refuse_folder(arguments.bundle)
    trust = read_trust(arguments, arguments.bundle)
    if not (arguments.no_probe or arguments.for_another_machine):
        progress.step(f"verifying {arguments.bundle}")
        _require_verified(arguments.bundle, VerifyOptions(trust=trust, allow_host_code=arguments.allow_host_code))
    options = InstallOptions(
        trust=trust, allow_downgrade=arguments.allow_downgrade, allow_unfit=arguments.for_another_machine
    )
    progress.step(f"installing {arguments.bundle} below {arguments.root}")
    installed = install(arguments.bundle, arguments.root, options)
    done = describe_installed(installed, arguments.root)
    return _collect(done, installed.name, arguments.root) if arguments.collect else done


def _collect(done: Outcome, name: str, root: Path) -> Outcome:
    """Drop old versions, and say which, and which not."""
    from runtimes.bundle.install import collect_garbage
    from runtimes.bundle.root import list_installed

    dropped = collect_garbage(root, name)
    kept = explain_kept([version for version in list_installed(root) if version.name == name])
    return replace(
        done,
        document={**done.document, "dropped": list(dropped)},
        text="\n".join([done.text, *(f"dropped {one}" for one in dropped)]),
        notes=(*done.notes, *kept),
    )


def describe_installed(installed: Installed, root: Path) -> Outcome:
    """Say what is current now."""
    version = f" version {installed.version}" if installed.version is not None else ""
    lines = [f"{installed.name}{version} (id {installed.id}) is current: {installed.path}"]
    if installed.replaced is not None:
        rollback = f"stepdown rollback {installed.name} --root {shlex.quote(str(root))}"
        lines.append(f"before it was {installed.replaced}; `{rollback}` goes back")
    return Outcome(
        document={**asdict(installed), "path": str(installed.path), "dropped": []},
        text="\n".join(lines),
        notes=(installed.signature,) if installed.signature is not None else (),
    )


def explain_kept(found: Sequence[InstalledVersion]) -> Iterator[str]:
    """Say what is not dropped, and why: nobody can tell what runs, or which is the way back, or it is in use."""
    for name, group in groupby(found, key=lambda version: version.name):
        versions = list(group)
        if not any(version.is_current for version in versions):
            yield f"{name}: nothing was dropped, for no version is current; install the one that should be"
        elif not any(version.is_current and version.is_previous for version in versions):
            others = (version for version in versions if not (version.is_current or version.is_previous))
            yield from (f"{name} {version.id} was not dropped: a program has it open" for version in others)


def _require_verified(bundle: Path, options: VerifyOptions) -> None:
    """Prove the bundle, its stored answers too, before anything is written.

    Raises:
        CorruptArtifact: it fails, the first failure; or stored answers were not run that could be.
    """
    from runtimes.bundle.verify import verify_bundle
    from runtimes.errors import CorruptArtifact

    report = verify_bundle(bundle, options)
    if report.failures:
        first = report.failures[0]
        raise CorruptArtifact(first.describe(), where=first.where, cure=first.cure)
    for variant in report.variants:
        if variant.cure is not None:
            raise CorruptArtifact(variant.probe or variant.name, where=variant.name, cure=variant.cure)
