"""``stepdown lint``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome, format_table
from runtimes.errors import UnsupportedModel, UsageError

if TYPE_CHECKING:
    from exporter.lint.check_file import Fixed
    from exporter.lint.rule import Finding
    from exporter.progress import Progress

SUMMARY = "Say what a runtime will not take of a quantised ONNX graph, and rewrite what can be."
EXAMPLE = "stepdown lint model.onnx --for tensorrt --fix -o fixed.onnx"
EXTRA = "onnxruntime"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="FILE.onnx", type=Path, help="a graph, whoever quantised it")
    parser.add_argument("--for", dest="target", metavar="RUNTIME", required=True, help="tensorrt")
    parser.add_argument("--fix", action="store_true", help="write a graph with what can be rewritten")
    parser.add_argument("-o", "--output", metavar="FILE.onnx", type=Path, help="where --fix writes")
    parser.add_argument("--force", action="store_true", help="replace the output file")


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Lint, and fix where asked."""
    if arguments.fix != (arguments.output is not None):
        raise UsageError("--fix and -o belong together", where="stepdown lint", cure="give both, or neither")
    if arguments.output is not None and arguments.output.exists() and not arguments.force:
        raise UsageError("the output exists", where=str(arguments.output), cure="pass --force to replace it")
    from exporter.lint.check_file import fix_file, lint_file

    progress.step(f"reading {arguments.model}")
    found = lint_file(arguments.model, arguments.target)
    fixed = None
    if arguments.fix:
        progress.step("rewriting and comparing on ONNX Runtime")
        fixed = fix_file(arguments.model, arguments.output, arguments.target)
    left = fixed.left if fixed is not None else found
    document: dict[str, object] = {"model": str(arguments.model), "findings": [asdict(item) for item in found]}
    if fixed is not None:
        document |= {"output": str(arguments.output), "fixed": asdict(fixed)}
    return Outcome(document=document, text=_describe(found, fixed), failure=_fail(left, arguments))


def _fail(left: Sequence[Finding], arguments: argparse.Namespace) -> UnsupportedModel | None:
    errors = [item for item in left if item.severity == "error"]
    if not errors:
        return None
    can = not arguments.fix and any(item.fixable for item in errors)
    return UnsupportedModel(
        f"{len(errors)} places that {arguments.target} refuses",
        where=str(arguments.model),
        cure="run with --fix -o FILE.onnx" if can else errors[0].cure,
    )


def _describe(found: Sequence[Finding], fixed: Fixed | None) -> str:
    lines = [_format(found)] if found else ["nothing found"]
    if fixed is not None:
        done = ", ".join(f"{name} {count}" for name, count in fixed.applied.items())
        lines.append(f"rewritten: {done or 'nothing'}")
        lines += [
            f"{row.output}: cosine to float {row.before:.5f} before, {row.after:.5f} after" for row in fixed.proof
        ]
        lines.append(f"left:\n{_format(fixed.left)}" if fixed.left else "left: nothing")
    return "\n".join(lines)


def _format(findings: Sequence[Finding]) -> str:
    rows = [
        (item.rule, item.severity, item.node, item.what, item.cure + (" (--fix)" if item.fixable else ""))
        for item in findings
    ]
    return format_table(("rule", "severity", "node", "what", "to fix"), rows)
