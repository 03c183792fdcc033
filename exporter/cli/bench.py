"""``stepdown bench``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome
from exporter.cli.parsing import (
    add_host_code,
    parse_positive,
    parse_processors,
    parse_seconds,
    parse_shape,
    refuse_existing,
    require_folder,
)
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from bench.measuring.record import Recorded
    from exporter.measuring.accuracy import AccuracyPlan
    from exporter.measuring.run import BenchOptions
    from exporter.progress import Progress

SUMMARY = "Measure models against each other: latency, throughput, loading, size, memory, accuracy."
EXAMPLE = "stepdown bench torch:./model out -o samples.json --report report.html"
EXTRA = "onnxruntime"

# Runs to profile at each shape: the shares of operators are steady by then.
_OP_RUNS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "subjects",
        metavar="SUBJECT",
        nargs="+",
        help="[LABEL=][RUNTIME[@DEVICE]:]PATH, such as out, torch:./model or fast=onnxruntime@cuda:model.onnx",
    )
    parser.add_argument("--vs", metavar="SUBJECT", help="the reference of the ratios (the first subject)")
    _add_outputs(parser)
    _add_measures(parser)
    _add_conditions(parser)
    _add_accuracy(parser)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    group.add_argument("-o", "--output", metavar="PATH", type=Path, help="where to write the raw samples")
    group.add_argument("--report", metavar="PATH", type=Path, help="where to write a report, one HTML file")
    group.add_argument("--history", metavar="FILE", type=Path, help="a file to add this run to, for `gate --history`")
    group.add_argument("--force", action="store_true", help="replace samples and report if they exist")


def _add_measures(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to measure")
    group.add_argument(
        "--shape",
        action="append",
        metavar="BxS",
        type=parse_shape,
        help="batch x sequence (1x16, 1x128, 8x128; repeatable)",
    )
    group.add_argument(
        "--streams",
        action="append",
        metavar="N",
        type=parse_positive,
        help="measure throughput with N concurrent callers (repeatable)",
    )
    group.add_argument(
        "--context",
        action="append",
        metavar="N",
        type=parse_positive,
        help="measure generation behind N tokens, by --streams sequences at once (repeatable)",
    )
    group.add_argument(
        "--new-tokens", metavar="N", type=parse_positive, default=32, help="with --context: tokens to time (32)"
    )
    group.add_argument("--per-op", action="store_true", help="profile each operator, with the module it came from")
    group.add_argument(
        "--time-budget",
        metavar="S",
        type=parse_seconds,
        help="time at most so many seconds, and end once every ratio is known to 1%% (15 rounds, however long)",
    )
    group.add_argument(
        "--timeout",
        metavar="S",
        type=parse_seconds,
        default=120.0,
        help="give up a subject that is silent so long (120)",
    )


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it runs")
    group.add_argument("--threads", metavar="N", type=parse_positive, help="threads to run with (all cores)")
    group.add_argument(
        "--affinity", metavar="LIST", type=parse_processors, default=(), help="the only processors to use: 0,1 or 0-3"
    )
    group.add_argument(
        "--device-inputs", action="store_true", help="on a GPU: leave the copies to it and back out of the figure"
    )
    add_host_code(group)


def _add_accuracy(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("accuracy")
    group.add_argument("--data", metavar="DATA", help="labelled data to judge the answers by, as for eval")
    group.add_argument(
        "--metric", metavar="NAME", help="accuracy, macro-f1, spearman, or cosine to the reference (by the task)"
    )
    group.add_argument(
        "--column", action="append", metavar="NAME", help="the column with the text; twice for a pair (repeatable)"
    )
    group.add_argument("--label-column", metavar="NAME", help="the column with the label (label; score for spearman)")
    group.add_argument("--samples", metavar="N", type=parse_positive, help="at most so many (all)")
    group.add_argument("--max-length", metavar="N", type=parse_positive, default=128, help="tokens a text (128)")


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Measure, and write what was asked for; a subject that failed fails the verb once the others are written."""
    if arguments.context:
        from exporter.cli.bench_generation import bench_generation

        return bench_generation(arguments, progress)
    _check_outputs(arguments)
    from exporter.cli.bench_result import describe_recording, render_tables, tell_recording
    from exporter.measuring.run import run_bench

    recorded = run_bench(_make_options(arguments), progress)
    written = _write_outputs(arguments, recorded)
    return Outcome(
        document=describe_recording(recorded.recording),
        text="\n".join([*tell_recording(recorded.recording), *map(str, written)]),
        tables=render_tables(recorded.recording),
        failure=next(iter(recorded.failures.values()), None),
    )


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Refuse what could not be written at the end, before anything is measured."""
    for name in ("metric", "column", "label_column", "samples"):
        if arguments.data is None and getattr(arguments, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError("there is no data to judge by", where=option, cure="give --data, or leave it out")
    for output in filter(None, (arguments.output, arguments.report)):
        refuse_existing(output, force=arguments.force)
    for output in filter(None, (arguments.output, arguments.report, arguments.history)):
        require_folder(output)
    if arguments.report is not None:
        from bench.report.document import check_report_available

        check_report_available()
    if arguments.history is not None and arguments.history.exists():
        from bench.recordings.history import read_history

        read_history(arguments.history)


def _make_options(arguments: argparse.Namespace) -> BenchOptions:
    from dataclasses import replace

    from bench.measuring.alone import AlonePlan
    from bench.measuring.record import ROUNDS, RecordPlan
    from exporter.measuring.run import BenchOptions
    from exporter.measuring.subjects import SubjectOptions

    return BenchOptions(
        subjects=tuple(arguments.subjects),
        versus=arguments.vs,
        shapes=tuple(dict.fromkeys(arguments.shape or ())),
        subject=SubjectOptions(
            threads=arguments.threads,
            affinity=arguments.affinity,
            device_inputs=arguments.device_inputs,
            allow_host_code=arguments.allow_host_code,
        ),
        plan=RecordPlan(
            rounds=replace(ROUNDS, time_budget_s=arguments.time_budget),
            alone=AlonePlan(
                streams=tuple(dict.fromkeys(arguments.streams or ())),
                op_runs=_OP_RUNS if arguments.per_op else 0,
                timeout_s=arguments.timeout,
            ),
        ),
        accuracy=_make_accuracy_plan(arguments),
    )


def _make_accuracy_plan(arguments: argparse.Namespace) -> AccuracyPlan | None:
    from exporter.judging.evaluate import EvalData
    from exporter.measuring.accuracy import AccuracyPlan

    if arguments.data is None:
        return None
    data = EvalData(
        spec=arguments.data,
        label_column=arguments.label_column,
        columns=tuple(arguments.column or ()),
        max_length=arguments.max_length,
        limit=arguments.samples,
    )
    return AccuracyPlan(data=data, metric=arguments.metric, timeout_s=arguments.timeout)


def _write_outputs(arguments: argparse.Namespace, recorded: Recorded) -> list[Path]:
    """Write samples, history and report; return their places."""
    from bench.recordings.history import append_history, read_history
    from bench.recordings.recording import write_recording

    recording = recorded.recording
    if arguments.output is not None:
        write_recording(arguments.output, recording)
    if arguments.history is not None:
        append_history(arguments.history, recording)
    if arguments.report is not None:
        from bench.report.document import write_report

        history = read_history(arguments.history) if arguments.history is not None else ()
        write_report(arguments.report, recording, history=history)
    return [path for path in (arguments.output, arguments.history, arguments.report) if path is not None]
