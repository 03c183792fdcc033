"""``stepdown lint``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome
from exporter.cli.parsing import parse_fraction, refuse_existing, require_folder
from runtimes.errors import UnsupportedModel, UsageError

if TYPE_CHECKING:
    from exporter.lint.check_file import Fixed
    from exporter.lint.rule import Finding
    from exporter.progress import Progress

SUMMARY = "Say what a runtime will not take of a quantised ONNX graph, and rewrite what can be."
EXAMPLE = "stepdown lint model.onnx --for tensorrt --fix -o fixed.onnx"
EXTRA = "onnxruntime"
# Places shown of each rule; a quantiser's one mistake is found hundreds of times.
_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="FILE.onnx", type=Path, help="a graph, whoever quantised it")
    parser.add_argument("--for", dest="target", metavar="RUNTIME", required=True, help="tensorrt")
    parser.add_argument("--fix", action="store_true", help="write a graph with what can be rewritten")
    parser.add_argument("-o", "--output", metavar="FILE.onnx", type=Path, help="where --fix writes")
    parser.add_argument("--force", action="store_true", help="replace the output file")
    parser.add_argument(
        "--allow-loss",
        metavar="COSINE",
        type=parse_fraction,
        help="how much further from float --fix may take the answers (0.001)",
    )


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Lint, and fix where asked."""
    _check_options(arguments)
    from exporter.lint.check_file import fix_file, lint_file
    from exporter.lint.proof import ALLOWED_LOSS

    progress.step(f"reading {arguments.model}")
    found = lint_file(arguments.model, arguments.target)
    document: dict[str, object] = {"model": str(arguments.model), "findings": [asdict(item) for item in found]}
    if not arguments.fix:
        text = "\n".join(_describe(found)) or "nothing found"
        return Outcome(document=document, text=text, failure=_fail(found, arguments))
    progress.step("rewriting, and comparing on ONNX Runtime")
    loss = ALLOWED_LOSS if arguments.allow_loss is None else arguments.allow_loss
    fixed = fix_file(arguments.model, arguments.output, arguments.target, allowed_loss=loss, force=arguments.force)
    document |= {"output": str(arguments.output), "fixed": asdict(fixed)}
    text = "\n".join([*_describe_fixed(fixed), *_describe(fixed.left)])
    return Outcome(document=document, text=text, failure=_fail(fixed.left, arguments))


def _check_options(arguments: argparse.Namespace) -> None:
    if arguments.fix != (arguments.output is not None):
        raise UsageError("--fix and -o belong together", where="stepdown lint", cure="give both, or neither")
    if arguments.allow_loss is not None and not arguments.fix:
        raise UsageError("--allow-loss is for --fix", where="stepdown lint", cure="leave it out, or add --fix -o FILE")
    if arguments.output is not None:
        if arguments.output.is_dir():
            raise UsageError("the output is a folder", where=str(arguments.output), cure="name a file in it")
        refuse_existing(arguments.output, force=arguments.force)
        require_folder(arguments.output)


def _fail(left: Sequence[Finding], arguments: argparse.Namespace) -> UnsupportedModel | None:
    """Warnings alone fail nothing."""
    errors = [item for item in left if item.severity == "error"]
    if not errors:
        return None
    can = not arguments.fix and any(item.fixable for item in errors)
    return UnsupportedModel(
        f"{len(errors)} places that {arguments.target} refuses or reads otherwise",
        where=str(arguments.model),
        cure="run with --fix -o FILE.onnx" if can else errors[0].cure,
    )


def _describe_fixed(fixed: Fixed) -> Iterator[str]:
    yield f"rewritten: {', '.join(f'{name} {count}' for name, count in fixed.applied.items()) or 'nothing'}"
    for row in fixed.proof:
        shape = "x".join(map(str, row.shape))
        yield f"{row.output} {shape}: cosine to float {row.before:.5f} before, {row.after:.5f} after"
    yield "left:" if fixed.left else "left: nothing"


def _describe(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield a paragraph for each rule, errors first: how often, the first places, what to do."""
    for name, group in groupby(sorted(findings, key=lambda item: item.severity), key=lambda item: item.rule):
        places = list(group)
        fixable = sum(item.fixable for item in places)
        help_of = "" if not fixable else ", --fix rewrites them" if fixable == len(places) else f", --fix: {fixable}"
        yield f"{places[0].severity} {name}: {len(places)} place{'s' if len(places) > 1 else ''}{help_of}"
        yield from (f"  {item.node}: {item.what}" for item in places[:_SHOWN])
        if len(places) > _SHOWN:
            yield f"  and {len(places) - _SHOWN} more (--json names all)"
        yield f"  to fix: {places[0].cure}"
