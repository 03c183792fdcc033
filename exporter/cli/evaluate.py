"""``stepdown eval``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from exporter.cli.outcome import Outcome, format_bytes
from exporter.cli.parsing import add_host_code, parse_positive, parse_shape
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from exporter.judging.evaluate import Evaluation
    from exporter.located import Located
    from exporter.measuring.artifact import Measured
    from exporter.progress import Progress

SUMMARY = "Measure any model, exported or not: its answers on data, its latency, size and memory."
EXAMPLE = "stepdown eval out --data pairs.jsonl --metric spearman --measure latency,size,memory"
EXTRA = "device"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model", metavar="ARTIFACT", help="an exported directory, an .onnx or .plan file, a checkpoint, or a .gguf file"
    )
    parser.add_argument("--data", metavar="DATA", help=".jsonl, .csv, .parquet or .npz")
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="accuracy, macro-f1, spearman of pairs, cosine to --reference, or perplexity: of hidden tokens, or of each"
        " next one where the tokenizer has no mask (by the task)",
    )
    parser.add_argument("--reference", metavar="MODEL", help="for cosine: the model whose outputs are right")
    parser.add_argument(
        "--column", action="append", metavar="NAME", help="the column with the text; twice for a pair (repeatable)"
    )
    parser.add_argument(
        "--label-column",
        metavar="NAME",
        help="the column with the label (label; score for spearman; labels of an .npz for perplexity)",
    )
    parser.add_argument("--samples", metavar="N", type=parse_positive, help="at most so many (all)")
    parser.add_argument("--max-length", metavar="N", type=parse_positive, default=128, help="tokens a text (128)")
    parser.add_argument(
        "--measure",
        metavar="LIST",
        help="also, in a process of its own: some of latency,size,memory; of a checkpoint, as float ONNX",
    )
    parser.add_argument(
        "--shape",
        action="append",
        metavar="BxS",
        type=parse_shape,
        help="batch x sequence to measure at (1x16, 1x128, 8x128; repeatable)",
    )
    parser.add_argument("--task", metavar="NAME", help="what the model does, where its files do not say")
    parser.add_argument("--threads", metavar="N", type=parse_positive, help="threads to run with (all cores)")
    add_host_code(parser)


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Evaluate the model, and measure what it costs."""
    _check(arguments)
    from exporter.located import open_artifact

    with ExitStack() as stack:
        opened = []
        for name in filter(None, (arguments.model, arguments.reference)):
            progress.step(f"opening {name}")
            opened.append(stack.enter_context(open_artifact(name, task=arguments.task)))
        found, notes = _evaluate(opened, arguments, progress) if arguments.data else (None, ())
        # Afterwards: what is timed has the machine to itself.
        measured = _measure(opened[0], arguments, progress) if arguments.measure else None
    document: dict[str, Any] = {} if found is None else asdict(found)
    document |= {} if measured is None else measured.to_json()
    return Outcome(document=document, text="\n".join(_tell(found, measured)), notes=notes)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what does not go together, before any work."""
    if (arguments.metric == "cosine") != bool(arguments.reference):
        raise UsageError("cosine and a reference belong together", cure="give both --metric cosine and --reference")
    if not arguments.data and not arguments.measure:
        raise UsageError("there is nothing to measure", where="stepdown eval", cure="give --data, --measure, or both")
    if not arguments.data and arguments.metric:
        raise UsageError("there is no data to judge by", where="--metric", cure="give --data, or leave it out")
    if arguments.metric:
        from exporter.judging.evaluate import METRICS, check_metric
        from exporter.judging.perplexity import PERPLEXITY

        check_metric(arguments.metric, (*METRICS, PERPLEXITY))
    if not arguments.measure and arguments.shape:
        raise UsageError("nothing is timed", where="--shape", cure="add --measure latency, or leave it out")
    if arguments.measure:
        from exporter.measuring.artifact import check_measures

        check_measures(_list_measures(arguments))


def _list_measures(arguments: argparse.Namespace) -> tuple[str, ...]:
    return tuple(dict.fromkeys(arguments.measure.split(","))) if arguments.measure else ()


def _evaluate(
    opened: list[Located], arguments: argparse.Namespace, progress: Progress
) -> tuple[Evaluation, tuple[str, ...]]:
    """Return what the data says, and what opening the models noted."""
    from exporter.judging.evaluate import EvalData, Evaluated, choose_metric, evaluate, evaluate_cosine
    from exporter.judging.perplexity import PERPLEXITY, measure_perplexity
    from exporter.subject import open_subject

    data = EvalData(
        spec=arguments.data,
        label_column=arguments.label_column,
        columns=tuple(arguments.column or ()),
        max_length=arguments.max_length,
        limit=arguments.samples,
    )
    open_one = partial(open_subject, threads=arguments.threads, allow_host_code=arguments.allow_host_code)
    with ExitStack() as stack:
        subjects = [stack.enter_context(open_one(one.reference, task=one.task)) for one in opened]
        models = [Evaluated(session=one.session, tokenizer=one.tokenizer, labels=one.labels) for one in subjects]
        metric = arguments.metric or choose_metric(subjects[0].task)
        notes = tuple(dict.fromkeys(note for one in subjects for note in one.notes))
        task = stack.enter_context(progress.task("evaluating", None))
        if metric == "cosine":
            return evaluate_cosine(models[0], models[1], data, task.advance), notes
        if metric == PERPLEXITY:
            return measure_perplexity(models[0], data, task.advance), notes
        return evaluate(models[0], data, metric, task.advance), notes


def _measure(artifact: Located, arguments: argparse.Namespace, progress: Progress) -> Measured:
    from exporter.measuring.artifact import MeasureOptions, measure_artifact
    from exporter.measuring.subjects import SubjectOptions

    options = MeasureOptions(
        measures=_list_measures(arguments),
        shapes=tuple(dict.fromkeys(arguments.shape or ())),
        subject=SubjectOptions(threads=arguments.threads, allow_host_code=arguments.allow_host_code),
    )
    return measure_artifact(artifact.reference, options, progress)


def _tell(found: Evaluation | None, measured: Measured | None) -> Iterator[str]:
    if found is not None:
        yield f"{found.metric} {found.value:.4f} over {found.samples} samples"
    if measured is None:
        return
    for shape, one in measured.latency.items():
        yield f"latency at {shape}: p50 {one.p50_ms:.3g} ms, p90 {one.p90_ms:.3g} ms, p99 {one.p99_ms:.3g} ms"
    if measured.size_bytes is not None:
        yield f"size {format_bytes(measured.size_bytes)}"
    if measured.peak_memory_bytes is not None:
        yield f"peak memory {format_bytes(measured.peak_memory_bytes)}"
