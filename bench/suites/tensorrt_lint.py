"""What ``stepdown lint`` makes of other tools' graphs: ``python -m bench.suites.tensorrt_lint``.

In: the real encoder and texts (:mod:`bench.assets`), tools in environments of their own. Out: Markdown tables on
stdout, the same as JSON in ``bench/results``: what is found in each tool's default output, what ``--fix`` makes of it,
and whether TensorRT-RTX builds a plan of it before and after. No GPU: nothing is said of speed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import assets
from bench.machine.commit import find_commit
from bench.packages import cache_directory
from bench.peers import stepdown_cli
from bench.peers.stepdown_lint import lint
from bench.suites.lint_graphs import TITLES, Ingredients, make_graph
from bench.suites.results import run_and_report
from bench.table import render_markdown
from runtimes.errors import StepdownError

_TEXTS = 16
# In a process of its own: a graph that makes the builder crash costs its own row.
_BUILD = """
import json, sys
from pathlib import Path
from runtimes.errors import StepdownError
from runtimes.trt.options import BuildOptions, TrtOptions
from runtimes.trt.runtime import TensorRt
model, out = map(Path, sys.argv[1:])
out.unlink(missing_ok=True)
try:
    built = TensorRt(TrtOptions(library="tensorrt-rtx", build=BuildOptions(sms=(89,)))).build(model, out)
    print(json.dumps({"bytes": built.path.stat().st_size}))
except StepdownError as error:
    print(json.dumps({"why": error.what}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The size of a plan, or why there is none."""

    size_bytes: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """What ``--fix`` did.

    Attributes:
        applied: Places rewritten by rule.
        left: Places found in the new graph by rule.
        before: The least cosine of an output to the float meaning of the graph, as the tool wrote it; None: NaN.
        after: The same of the new graph.
        refused: Why nothing is written by default; the rest is then of ``--allow-loss 1``.
        why: Why nothing is written at all.
        plan: What TensorRT-RTX makes of the new graph.
    """

    applied: Mapping[str, int]
    left: Mapping[str, int]
    before: float | None = None
    after: float | None = None
    refused: str = ""
    why: str = ""
    plan: Plan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One graph. ``why``: why there is none."""

    why: str = ""
    found: Mapping[str, int] | None = None
    errors: int = 0
    plan: Plan | None = None
    fix: Fix | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; see ``--help``."""
    options = _parse(arguments)
    return run_and_report("tensorrt_lint", options.output, lambda: run_suite(options), serialise_rows, render_rows)


def serialise_rows(rows: Mapping[str, Row]) -> str:
    """Return all rows as JSON, with the commit they were measured at."""
    document = {"commit": find_commit(), "texts": _TEXTS, "rows": {key: asdict(row) for key, row in rows.items()}}
    return json.dumps(document, sort_keys=True)


def run_suite(options: argparse.Namespace) -> dict[str, Row]:
    """Make, lint, fix and build every graph asked for.

    Raises:
        MissingDependency: an asset cannot be had. A tool that cannot be installed is a row with the reason.
    """
    given = _prepare(options)
    rows = {}
    for key in options.only:
        sys.stderr.write(f"{key}\n")
        rows[key] = _examine(key, given)
    return rows


def _prepare(options: argparse.Namespace) -> Ingredients:
    checkpoint, cache = assets.minilm(), cache_directory()
    work: Path = options.work or cache / "bench-tensorrt-lint"
    lines = assets.lee().background.read_text(encoding="utf-8").splitlines()[:_TEXTS]
    work.mkdir(parents=True, exist_ok=True)
    return Ingredients(
        float_model=options.float_onnx or stepdown_cli.trace_float(checkpoint, work / "float"),
        tokenizer=checkpoint / "tokenizer.json",
        lines=tuple(lines),
        work=work,
        cache=cache,
    )


def _examine(key: str, given: Ingredients) -> Row:
    try:
        graph = make_graph(key, given).path
    except StepdownError as error:
        return Row(why=error.what)
    document = lint(graph)
    if "error" in document:
        return Row(why=document["error"]["what"])
    findings = document["findings"]
    return Row(
        found=_count(findings),
        errors=sum(item["severity"] == "error" for item in findings),
        plan=build(graph, given.work / f"{key}.plan"),
        fix=_fix(graph, given.work / f"{key}.fixed.onnx"),
    )


def _fix(graph: Path, out: Path) -> Fix:
    words = ("--fix", "-o", str(out), "--force")
    document = lint(graph, *words)
    refused = document["error"]["what"] if "error" in document else ""
    if document.get("error", {}).get("kind") == "ParityFailure":
        document = lint(graph, *words, "--allow-loss", "1")
    if "error" in document:
        return Fix(applied={}, left={}, why=document["error"]["what"])
    fixed = document["fixed"]
    before = [row["before"] for row in fixed["proof"]]
    return Fix(
        applied=fixed["applied"],
        left=_count(fixed["left"]),
        before=None if None in before else min(before),
        after=min(row["after"] for row in fixed["proof"]),
        refused=refused,
        plan=build(out, out.with_suffix(".plan")),
    )


def build(model: Path, out: Path) -> Plan:
    """Build a plan for one generation of GPUs, with the default profile, in a process of its own."""
    command = [sys.executable, "-c", _BUILD, str(model), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        found: dict[str, Any] = json.loads(last)
    except json.JSONDecodeError:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return Plan(why=f"the process ended with {done.returncode}: {said}")
    return Plan(size_bytes=found.get("bytes"), why=found.get("why", ""))


def _count(findings: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return dict(Counter(item["rule"] for item in findings))


def render_rows(rows: Mapping[str, Row]) -> str:
    """Return the tables as Markdown: what is found and what became of it; what was refused, and why."""
    header = ["graph", "found", "plan as it is, MB", "cosine before -> after", "left", "plan after --fix, MB"]
    cells = [[TITLES[key], *_describe(row)] for key, row in rows.items()]
    fixed = [row.fix for row in rows.values() if row.fix is not None and row.fix.plan is not None]
    plans = [one for one in fixed if one.plan is not None and one.plan.size_bytes is not None]
    loss = sum(bool(one.refused) for one in plans)
    as_is = sum(row.plan is not None and row.plan.size_bytes is not None for row in rows.values())
    count = f"{as_is} of {len(rows)} graphs become plans as they are, {len(plans)} after --fix ({loss} with a loss)."
    reasons = [f"{TITLES[key]}, {what}: {why}" for key, row in rows.items() for what, why in _list_reasons(row)]
    return "\n\n".join([render_markdown(header, cells), count, *reasons])


def _describe(row: Row) -> list[str]:
    if row.found is None:
        return ["not made", "-", "-", "-", "-"]
    fix = row.fix
    if fix is None or fix.after is None:
        return [_list_counts(row.found), _show_size(row.plan), "-", "-", "-"]
    cosines = f"{'NaN' if fix.before is None else f'{fix.before:.3f}'} -> {fix.after:.3f}"
    return [
        _list_counts(row.found),
        _show_size(row.plan),
        f"{cosines}{' (refused)' if fix.refused else ''}",
        _list_counts(fix.left),
        _show_size(fix.plan),
    ]


def _list_reasons(row: Row) -> list[tuple[str, str]]:
    found = [("not made", row.why)]
    if row.plan is not None:
        found.append(("as it is", row.plan.why))
    if row.fix is not None:
        found += [("--fix refuses", row.fix.refused or row.fix.why)]
        found += [("after --fix", row.fix.plan.why)] if row.fix.plan is not None else []
    return [(what, why) for what, why in found if why]


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing"


def _show_size(plan: Plan | None) -> str:
    return "-" if plan is None or plan.size_bytes is None else f"{plan.size_bytes / 1e6:.1f}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.suites.tensorrt_lint", description=__doc__, allow_abbrev=False)
    parser.add_argument("--float-onnx", type=Path, metavar="FILE", help="plain float encoder (default: trace it)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where graphs are kept; remove it to make them anew")
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("bench/results"), help="where results go")
    parser.add_argument("--only", type=_parse_keys, default=list(TITLES), metavar="KEY,...", help=", ".join(TITLES))
    return parser.parse_args(arguments)


def _parse_keys(text: str) -> list[str]:
    keys = text.split(",")
    unknown = [key for key in keys if key not in TITLES]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no graph {unknown[0]!r}; choose among {', '.join(TITLES)}")
    return keys


if __name__ == "__main__":
    sys.exit(main())
