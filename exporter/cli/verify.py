"""``stepdown verify``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome
from exporter.cli.parsing import add_host_code
from exporter.cli.trust import add_trust, read_trust
from runtimes.errors import CorruptArtifact, make_printable

if TYPE_CHECKING:
    from exporter.progress import Progress
    from runtimes.bundle.verify import VariantReport, VerifyReport

SUMMARY = "Prove a bundle: structure, hashes, signature, contents, fit to this machine, and its stored answers."
EXAMPLE = "stepdown verify minilm.stepdown.tar.gz --key release.pub --require-signature"
EXTRA = "device"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="an archive, or the folder of an installed version")
    add_trust(parser)
    add_host_code(parser)
    parser.add_argument("--no-probe", action="store_true", help="do not run the stored inputs")
    parser.add_argument("--device", metavar="NAME", help="judge for this device, not for this machine; runs nothing")


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Verify the bundle."""
    from runtimes.bundle.profiles import read_profile
    from runtimes.bundle.verify import VerifyOptions, verify_bundle

    options = VerifyOptions(
        trust=read_trust(arguments, arguments.bundle),
        probe=not arguments.no_probe,
        allow_host_code=arguments.allow_host_code,
        device=read_profile(arguments.device) if arguments.device is not None else None,
    )
    progress.step(f"verifying {arguments.bundle}")
    report = verify_bundle(arguments.bundle, options)
    return Outcome(
        document=_make_document(report), text=make_printable("\n".join(_describe(report))), failure=_make_error(report)
    )


def _make_document(report: VerifyReport) -> dict[str, object]:
    return {**asdict(report), "path": str(report.path), "verdict": report.verdict}


def _make_error(report: VerifyReport) -> CorruptArtifact | None:
    """Return the first failure as an error; the result names all."""
    if not report.failures:
        return None
    first = report.failures[0]
    others = f", and {len(report.failures) - 1} more" if len(report.failures) > 1 else ""
    return CorruptArtifact(f"{first.describe()}{others}", where=first.where, cure=first.cure)


def _describe(report: VerifyReport) -> Iterator[str]:
    if report.name is not None:
        version = f" version {report.version}" if report.version is not None else ""
        yield f"{report.path}: {report.name}{version}, id {report.id}"
    if report.signature is not None:
        yield f"signature  {report.signature.describe()}"
    for variant in report.variants:
        yield f"{variant.name}  {_describe_variant(variant)}"
        if variant.cure:
            yield f"  to run them: {variant.cure}"
    for failure in report.failures:
        yield f"FAILED     {failure.stage}: {failure.describe()}" + (f" (at {failure.where})" if failure.where else "")
        if failure.cure:
            yield f"  to fix: {failure.cure}"
    yield f"verdict    {report.verdict}, for {report.machine}"


def _describe_variant(variant: VariantReport) -> str:
    reasons = "; ".join(f"{one.what} (expected {one.expected}, found {one.found})" for one in variant.misfits)
    if not variant.fits:
        return f"does not fit: {reasons}"
    if variant.is_built_there:
        return f"fits once its plan is built here{': ' if reasons else ''}{reasons}"
    return f"fits; {variant.probe or 'stored answers not run'}"
