"""``stepdown eval``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome
from exporter.cli.parsing import add_host_code, parse_positive
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from exporter.progress import Progress

SUMMARY = "Measure any model, exported or not, on labelled data."
EXAMPLE = "stepdown eval out --data pairs.jsonl --metric spearman"
EXTRA = "device"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model", metavar="ARTIFACT", help="an exported directory, an .onnx or .plan file, or a checkpoint"
    )
    parser.add_argument("--data", metavar="DATA", required=True, help=".jsonl, .csv, .parquet or .npz")
    parser.add_argument(
        "--metric", metavar="NAME", help="accuracy, macro-f1, spearman of pairs, or cosine to --reference (by the task)"
    )
    parser.add_argument("--reference", metavar="MODEL", help="for cosine: the model whose outputs are right")
    parser.add_argument(
        "--column", action="append", metavar="NAME", help="the column with the text; twice for a pair (repeatable)"
    )
    parser.add_argument("--label-column", metavar="NAME", help="the column with the label (label; score for spearman)")
    parser.add_argument("--samples", metavar="N", type=parse_positive, help="at most so many (all)")
    parser.add_argument("--max-length", metavar="N", type=parse_positive, default=128, help="tokens a text (128)")
    parser.add_argument("--task", metavar="NAME", help="what the model does, where its files do not say")
    parser.add_argument("--threads", metavar="N", type=parse_positive, help="threads to run with (all cores)")
    add_host_code(parser)


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Evaluate the model."""
    if (arguments.metric == "cosine") != bool(arguments.reference):
        raise UsageError("cosine and a reference belong together", cure="give both --metric cosine and --reference")
    from exporter.evaluate import EvalData, Evaluated, check_metric, choose_metric, evaluate, evaluate_cosine
    from exporter.subject import open_subject

    if arguments.metric:
        check_metric(arguments.metric)
    data = EvalData(
        spec=arguments.data,
        label_column=arguments.label_column,
        columns=tuple(arguments.column or ()),
        max_length=arguments.max_length,
        limit=arguments.samples,
    )
    open_one = partial(
        open_subject, task=arguments.task, threads=arguments.threads, allow_host_code=arguments.allow_host_code
    )
    with ExitStack() as stack:
        opened = []
        for name in filter(None, (arguments.model, arguments.reference)):
            progress.step(f"opening {name}")
            opened.append(stack.enter_context(open_one(name)))
        models = [Evaluated(session=one.session, tokenizer=one.tokenizer, labels=one.labels) for one in opened]
        metric = arguments.metric or choose_metric(opened[0].task)
        task = stack.enter_context(progress.task("evaluating", None))
        if metric == "cosine":
            result = evaluate_cosine(models[0], models[1], data, task.advance)
        else:
            result = evaluate(models[0], data, metric, task.advance)
    return Outcome(
        document=asdict(result),
        text=f"{result.metric} {result.value:.4f} over {result.samples} samples",
        notes=tuple(dict.fromkeys(note for one in opened for note in one.notes)),
    )
