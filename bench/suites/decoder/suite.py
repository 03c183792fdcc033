"""SmolLM2-135M as a decoder, against what a user would take instead: ``python -m bench.suites.decoder``.

In: real weights and texts (:mod:`bench.assets`). Out: Markdown tables on stdout, everything measured as JSON in
``bench/results``. What is made and measured is kept in the work folder: a run that was cut off goes on where it was,
and prints its tables once all is there. For a new exporter nothing is made anew by itself: give it another work folder.

The weights are what 4-bit blocks stand for (GGUF Q4_1): they are the baseline here, and what 4 bits cost other weights
is not told from them. A decoder of plain float weights is given with ``--student``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import assets
from bench.machine.description import describe_machine
from bench.packages import cache_directory
from bench.peers.llama_cpp import open_llama_cpp
from bench.suites.compression.commands import Commands
from bench.suites.decoder.agreement import measure_agreement, render_agreement
from bench.suites.decoder.export import measure_export, render_export
from bench.suites.decoder.models import Workplace
from bench.suites.decoder.perplexity import measure_perplexity, render_perplexity
from bench.suites.decoder.pruned import measure_pruned, render_pruned
from bench.suites.decoder.speed import measure_speed, render_speed
from bench.suites.decoder.tokens import measure_tokens, render_tokens
from bench.suites.goals import Goal
from bench.suites.results import run_and_report
from bench.table import render_markdown

# By part: what it measures, as JSON, and its tables.
_RENDERERS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "tokens": render_tokens,
    "export": render_export,
    "speed": render_speed,
    "perplexity": render_perplexity,
    "pruned": render_pruned,
    "agreement": render_agreement,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What one run has: by part, all that was measured, and every goal."""

    machine: Mapping[str, Any]
    parts: Mapping[str, Mapping[str, Any]]
    goals: tuple[Goal, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; see ``--help``."""
    options = _parse(arguments)
    return run_and_report(
        "decoder",
        options.output,
        lambda: run_suite(options),
        lambda results: json.dumps(asdict(results), sort_keys=True),
        render_results,
    )


def run_suite(options: argparse.Namespace) -> Results:
    """Measure every part asked for."""
    until = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    work = Workplace(
        folder=options.work or cache_directory() / "bench-decoder",
        gguf=assets.smollm2(),
        texts=assets.english(),
        commands=Commands(threads=options.threads, until=until),
    )
    return measure_parts(work, options)


def measure_parts(work: Workplace, options: argparse.Namespace) -> Results:
    """Measure every part asked for in a workplace."""
    rounds, seed, prompts = options.rounds, options.seed, options.prompts
    measures: Mapping[str, Callable[[], Mapping[str, Any]]] = {
        "tokens": lambda: measure_tokens(work, prompts=prompts),
        "export": lambda: measure_export(work),
        "speed": lambda: measure_speed(work, open_llama_cpp(cache_directory()), rounds=rounds, seed=seed),
        "perplexity": lambda: measure_perplexity(work, student=options.student, prompts=prompts),
        "pruned": lambda: measure_pruned(work, dense=options.student, rounds=rounds, seed=seed, every=options.every),
        "agreement": lambda: measure_agreement(work, prompts=prompts, generations=options.generations),
    }
    parts = {part: measures[part]() for part in options.part}
    return Results(
        machine=describe_machine(options.threads),
        parts=parts,
        goals=tuple(goal for found in parts.values() for goal in _read_goals(found)),
    )


def render_results(results: Results) -> str:
    """Return the tables as Markdown, the goals last."""
    machine = results.machine
    shown = [f"{machine['cpu']} ({machine['isa']}), {machine['threads']} threads"]
    shown += [_RENDERERS[part](found) for part, found in results.parts.items()]
    verdicts = [[goal.name, goal.wanted, goal.measured, goal.verdict.upper()] for goal in results.goals]
    return "\n\n".join([*shown, render_markdown(["to show", "wanted", "measured", ""], verdicts)])


def _read_goals(found: Mapping[str, Any]) -> list[Goal]:
    """Return the goals of a part, which hold for all of it or for each thing that it measured."""
    listed = found.get("goals")
    if listed is not None:
        return [Goal(**told) for told in listed]
    return [goal for one in found.values() for goal in _read_goals(one)]


def _count(text: str) -> int:
    """Return a whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return int(text)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.suites.decoder", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--part",
        action="append",
        choices=list(_RENDERERS),
        help="repeatable (all). What was found is kept piece by piece: one model and one question, or one shape. speed"
        " builds llama.cpp first, once: about 25 minutes of one core",
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="where models and records are kept")
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("bench/results"), help="where results go")
    parser.add_argument("--student", type=Path, metavar="DIR", help="a checkpoint of plain float weights, to prune too")
    parser.add_argument("--every", type=_count, default=1, help="pruned learns back from one paragraph in so many (1)")
    parser.add_argument("--threads", type=_count, default=2, help="of every subject (2)")
    parser.add_argument("--rounds", type=_count, default=9, help="for each shape (9)")
    parser.add_argument("--prompts", type=_count, default=50, help="to compare tokens on (50)")
    parser.add_argument("--generations", type=_count, default=2000, help="over which memory must stay flat (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and orders (0)")
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="N",
        help="begin nothing new after so long, and interrupt what trains; run again to go on. An export begins anew",
    )
    options = parser.parse_args(arguments)
    options.part = list(dict.fromkeys(options.part or _RENDERERS))
    return options
