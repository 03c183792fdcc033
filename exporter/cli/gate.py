"""``stepdown gate``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome, format_table
from exporter.cli.parsing import (
    add_host_code,
    parse_cosine,
    parse_fraction,
    parse_positive,
    parse_seconds,
    parse_shape,
    refuse_existing,
    require_folder,
)
from runtimes.errors import Inconclusive, Regression, StepdownError, UsageError

if TYPE_CHECKING:
    from bench.ci.findings import Finding
    from bench.gating.verdict import GateResult
    from exporter.measuring.gate import Gated
    from exporter.progress import Progress

SUMMARY = "Fail if a model became slower or larger: two models run interleaved here, two sample files, or a history."
EXAMPLE = (
    "stepdown gate base head --max-regression 5% --junit gate.xml --github\n  stepdown gate --history history.jsonl"
)
EXTRA = "onnxruntime"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sides = "a model, as for bench, or a sample file (samples.json, or samples.json:LABEL)"
    parser.add_argument("base", metavar="BASE", nargs="?", help=f"the reference: {sides}")
    parser.add_argument("head", metavar="HEAD", nargs="?", help="what is judged, of the same kind as BASE")
    parser.add_argument(
        "--history",
        metavar="FILE",
        help="judge the last entry of what `bench --history` wrote (FILE:LABEL among several)",
    )
    parser.add_argument(
        "--max-regression", metavar="X", type=parse_fraction, default=0.05, help="a slowdown that must not pass (5%%)"
    )
    parser.add_argument(
        "--allow-growth", metavar="X", type=parse_fraction, default=0.0, help="how much larger it may become (0%%)"
    )
    parser.add_argument(
        "--shape", metavar="BxS", type=parse_shape, action="append", help="batch x sequence to judge (repeatable)"
    )
    parser.add_argument(
        "--time-budget", metavar="S", type=parse_seconds, default=30.0, help="seconds to measure models for (30)"
    )
    parser.add_argument(
        "--timeout", metavar="S", type=parse_seconds, default=120.0, help="seconds to wait for a model's answer (120)"
    )
    parser.add_argument("--threads", metavar="N", type=parse_positive, help="threads to run with (all cores)")
    add_host_code(parser)
    parser.add_argument(
        "--min-cosine",
        metavar="X",
        type=parse_cosine,
        default=0.99,
        help="how alike the outputs must be (0.99); -1 takes any",
    )
    parser.add_argument(
        "--allow-different-machine", action="store_true", help="judge sample files of two machines; never answers same"
    )
    parser.add_argument("--junit", metavar="FILE", type=Path, help="write a JUnit XML report")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write a Markdown summary")
    parser.add_argument(
        "--github", action="store_true", help="annotate the run of GitHub Actions, and add to its job summary"
    )
    parser.add_argument("--report", metavar="FILE", type=Path, help="write a report, one HTML file")
    parser.add_argument("-o", "--output", metavar="PATH", type=Path, help="where to write the samples of two models")
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Judge, and write what was asked for, whether there is an answer or an error."""
    for written in filter(None, (arguments.output, arguments.junit, arguments.markdown, arguments.report)):
        require_folder(written)
    from bench.ci.findings import describe_error, list_findings
    from bench.ci.markdown import render_markdown, render_markdown_error

    try:
        _check(arguments)
        gated = _judge(arguments, progress)
        if arguments.report is not None:
            _draw(arguments.report, gated)
    except StepdownError as error:
        _report(arguments, (describe_error(error),), render_markdown_error(error))
        raise
    result = gated.result
    _report(arguments, list_findings(result), render_markdown(result))
    return Outcome(
        document={**asdict(result), "exit_code": result.exit_code, "steps": [asdict(step) for step in gated.steps]},
        text=_describe(result),
        failure=_find_failure(result, is_history=bool(arguments.history)),
    )


def _draw(path: Path, gated: Gated) -> None:
    from bench.report.document import write_report

    if gated.recording is None:
        raise UsageError(
            "samples of two runs cannot be drawn together", where="--report", cure="leave it out, or give the models"
        )
    write_report(path, gated.recording, gate=gated.result, history=gated.history)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.report is not None:
        from bench.report.document import check_report_available

        check_report_available()
    if arguments.history and arguments.base:
        raise UsageError("a history is judged by itself", cure="give either --history FILE, or BASE and HEAD")
    if not arguments.history and not arguments.head:
        raise UsageError("there is nothing to judge", cure="give BASE and HEAD, or --history FILE")
    if arguments.history:
        _refuse_with_history(arguments)
    if arguments.output is not None:
        refuse_existing(arguments.output, force=arguments.force)


def _refuse_with_history(arguments: argparse.Namespace) -> None:
    given = {
        "--output": arguments.output,
        "--shape": arguments.shape,
        "--threads": arguments.threads,
        "--allow-host-code": arguments.allow_host_code,
        "--allow-different-machine": arguments.allow_different_machine,
    }
    for name, value in given.items():
        if value:
            raise UsageError("a history is judged as it is", where=name, cure="leave it out")


def _judge(arguments: argparse.Namespace, progress: Progress) -> Gated:
    from bench.gating.rule import GateLimits
    from exporter.measuring.gate import GateOptions, gate, gate_history

    limits = GateLimits(max_regression=arguments.max_regression, max_growth=arguments.allow_growth)
    if arguments.history:
        return gate_history(arguments.history, limits)
    options = GateOptions(
        limits=limits,
        shapes=tuple(arguments.shape or ()),
        time_budget_s=arguments.time_budget,
        timeout_s=arguments.timeout,
        threads=arguments.threads,
        allow_host_code=arguments.allow_host_code,
        min_cosine=arguments.min_cosine,
        allow_different_machine=arguments.allow_different_machine,
        output=arguments.output,
    )
    return gate(arguments.base, arguments.head, options, progress)


def _report(arguments: argparse.Namespace, findings: tuple[Finding, ...], markdown: str) -> None:
    """Write the reports; they replace older ones, since a stale pass must not outlive a failure."""
    from bench.ci.annotations import render_annotations
    from bench.ci.junit import render_junit
    from runtimes.atomic import append_bytes, write_bytes, write_text

    if arguments.junit is not None:
        write_bytes(arguments.junit, render_junit(findings))
    if arguments.markdown is not None:
        write_text(arguments.markdown, markdown)
    if arguments.github:
        # On stderr, which GitHub reads as well: stdout is the result's.
        sys.stderr.writelines(f"{line}\n" for line in render_annotations(findings))
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            append_bytes(Path(summary), markdown.encode())


def _describe(result: GateResult) -> str:
    """Return the tables, what differs, the notes, and the verdict last."""
    from bench.ci.findings import list_findings, name_answer

    rows = [(one.name, one.status, one.message) for one in list_findings(result)]
    lines = [format_table(("judged", "", "found"), rows), ""]
    lines += [f"differs: {line}" for line in result.differences]
    lines += [f"note: {line}" for line in result.notes]
    lines.append(f"{result.head} against {result.base}: {name_answer(result)}")
    return "\n".join(lines)


def _find_failure(result: GateResult, *, is_history: bool) -> StepdownError | None:
    from bench.ci.findings import summarise

    if result.exit_code == Regression.exit_code:
        cure = "find out where: `stepdown bench --per-op`; or allow it: --max-regression, --allow-growth"
        return Regression(summarise(result), where=result.head, cure=cure)
    if result.exit_code == Inconclusive.exit_code:
        return Inconclusive(summarise(result), where=result.head, cure=_find_cure(result, is_history=is_history))
    return None


def _find_cure(result: GateResult, *, is_history: bool) -> str:
    if is_history:
        return "add entries (`stepdown bench --history`), on a quieter machine or beside a fixed --vs"
    if result.interleaved:
        return "measure longer (--time-budget), or on a quieter machine"
    return "give both models to one `stepdown gate`, which runs them interleaved"
