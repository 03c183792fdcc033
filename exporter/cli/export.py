"""``stepdown export``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome
from exporter.cli.parsing import (
    add_output,
    parse_fraction,
    parse_positive,
    parse_shape,
    refuse_existing,
    unknown_word,
)

if TYPE_CHECKING:
    from exporter.pipeline import ExportOptions
    from exporter.progress import Progress

SUMMARY = "Take a model down to a runtime: build candidates, time and check them, keep the best."
EXAMPLE = "stepdown export ./model --target onnxruntime --calibration-data texts.jsonl -o out"
EXTRA = "onnxruntime"

TARGETS = ("onnxruntime",)
PRECISIONS = ("auto", "fp32", "int8", "int8-dynamic", "int8-static", "weights-8", "weights-4")
METHODS = ("auto", "minmax", "percentile", "entropy", "mse")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a Hugging Face directory or hub id, file.py:factory, a .pt2 program, or an .onnx file",
    )
    add_output(parser, "the result, a directory")
    parser.add_argument(
        "--target", action="append", metavar="NAME", help=f"what will serve it: {', '.join(TARGETS)} (repeatable)"
    )
    parser.add_argument("--task", metavar="NAME", help="what the model does, where its files do not say")
    parser.add_argument("--opset", metavar="N", type=parse_positive, help="ONNX opset (default: the exporter's)")
    _add_calibration(parser)
    _add_judgement(parser)


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("calibration")
    group.add_argument(
        "--calibration-data", metavar="DATA", help=".txt, .jsonl, .csv, .parquet, .npz or module:callable"
    )
    group.add_argument(
        "--column", action="append", metavar="NAME", help="the column with the text; twice for a pair (repeatable)"
    )
    group.add_argument("--samples", metavar="N", type=parse_positive, default=256, help="at most so many (256)")
    group.add_argument("--max-length", metavar="N", type=parse_positive, default=128, help="tokens a text (128)")
    group.add_argument("--method", choices=METHODS, default="auto", help="how ranges are found (auto: by error)")
    group.add_argument("--seed", metavar="N", type=int, default=0, help="of every random choice (0)")


def _add_judgement(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("choice")
    group.add_argument("--precision", choices=PRECISIONS, default="auto", help="force a precision (auto: the fastest)")
    group.add_argument(
        "--max-drop", metavar="X", type=parse_fraction, default=0.01, help="largest accepted loss of accuracy (1%%)"
    )
    group.add_argument("--eval-data", metavar="DATA", help="labelled data to judge accuracy by")
    group.add_argument("--label-column", metavar="NAME", default="label", help="the column with the label (label)")
    group.add_argument("--metric", metavar="NAME", help="accuracy, macro-f1 or spearman (by the task)")
    group.add_argument(
        "--shape",
        action="append",
        metavar="BxS",
        type=parse_shape,
        help="batch x sequence to time at (1x16, 1x128, 8x128; repeatable)",
    )
    group.add_argument("--for-isa", metavar="LEVEL", help="make it for another CPU, untimed: avx2, avx512, vnni, ...")
    group.add_argument("--threads", metavar="N", type=parse_positive, help="threads to run with (all cores)")


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Export the model and say which candidate was chosen."""
    options = _check_options(arguments)
    from exporter.pipeline import export
    from exporter.report import render_table

    result = export(options, progress)
    return Outcome(
        document=result.to_json(),
        text=f"{result.report.verdict}\n{arguments.output}",
        tables=(render_table(result.report),),
    )


def _check_options(arguments: argparse.Namespace) -> ExportOptions:
    """Refuse what cannot work before anything heavy is imported."""
    targets = tuple(dict.fromkeys(arguments.target or TARGETS))
    for target in targets:
        if target not in TARGETS:
            raise unknown_word("target", target, TARGETS, where="--target")
    refuse_existing(arguments.output, force=arguments.force)
    from exporter.pipeline import ExportOptions

    shapes = {"shapes": tuple(arguments.shape)} if arguments.shape else {}
    return ExportOptions(
        model=arguments.model,
        output=arguments.output,
        targets=targets,
        task=arguments.task,
        calibration_data=arguments.calibration_data,
        column=tuple(arguments.column or ()),
        calibration_samples=arguments.samples,
        max_length=arguments.max_length,
        eval_data=arguments.eval_data,
        label_column=arguments.label_column,
        metric=arguments.metric,
        precision=arguments.precision,
        method=arguments.method,
        max_drop=arguments.max_drop,
        for_isa=arguments.for_isa,
        threads=arguments.threads,
        opset=arguments.opset,
        seed=arguments.seed,
        force=arguments.force,
        **shapes,
    )
