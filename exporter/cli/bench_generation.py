"""What ``stepdown bench`` does where a ``--context`` is given. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome
from exporter.cli.parsing import refuse_existing, require_folder
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from exporter.measuring.generation import GenerationOptions
    from exporter.progress import Progress

# What is measured of single runs only, by the attribute of its option.
_OF_RUNS = (
    *("shape", "per_op", "report", "history", "data", "metric", "column", "label_column", "samples"),
    *("affinity", "device_inputs", "allow_host_code"),
)


def bench_generation(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Measure generation, and write the file that was asked for."""
    _check(arguments)
    from bench.generation.tables import describe_generation
    from exporter.cli.bench_generation_result import render_tables, tell_recording
    from exporter.cli.outcome import format_json
    from exporter.measuring.generation import run_generation
    from runtimes.atomic import write_text

    options = _make_options(arguments)
    rounds = options.plan.rounds * len(options.plan.shapes)
    with progress.task("generating", rounds) as task:
        recording = run_generation(options, lambda _shape, _done: task.advance())
    document = describe_generation(recording)
    written = []
    if arguments.output is not None:
        write_text(arguments.output, format_json(document) + "\n")
        written.append(str(arguments.output))
    return Outcome(
        document=document,
        text="\n".join([*tell_recording(recording), *written]),
        tables=render_tables(recording),
    )


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what generation has no use for, and what could not be written, before anything is measured."""
    for name in _OF_RUNS:
        if getattr(arguments, name):
            raise UsageError(
                "it is not measured of generation",
                where=f"--{name.replace('_', '-')}",
                cure="leave it out, or leave --context out",
            )
    if arguments.output is not None:
        refuse_existing(arguments.output, force=arguments.force)
        require_folder(arguments.output)


def _make_options(arguments: argparse.Namespace) -> GenerationOptions:
    from bench.generation.measure import GenerationPlan, GenerationShape
    from exporter.measuring.generation import GenerationOptions

    streams = tuple(dict.fromkeys(arguments.streams or (1,)))
    contexts = tuple(dict.fromkeys(arguments.context))
    shapes = tuple(GenerationShape(context=context, streams=count) for context in contexts for count in streams)
    return GenerationOptions(
        subjects=tuple(arguments.subjects),
        versus=arguments.vs,
        threads=arguments.threads,
        plan=GenerationPlan(
            shapes=shapes,
            new_tokens=arguments.new_tokens,
            time_budget_s=arguments.time_budget,
            timeout_s=arguments.timeout,
        ),
    )
