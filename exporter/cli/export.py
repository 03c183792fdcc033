"""``stepdown export``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome
from exporter.cli.parsing import (
    add_output,
    parse_bytes,
    parse_fraction,
    parse_positive,
    parse_shape,
    parse_sms,
    refuse_existing,
)
from exporter.compressing.export_hints import choose_precision, read_export_hints
from exporter.options import (
    CACHE_PRECISIONS,
    METHODS,
    PRECISIONS,
    RESTS,
    TARGETS,
    ExportOptions,
    TensorRtOptions,
    check_options,
)
from runtimes.errors import MissingDependency
from runtimes.trt.library import LIBRARIES
from runtimes.trt.options import DEFAULT_SMS, BuildOptions
from runtimes.trt.profiles import FORM, parse_profile

if TYPE_CHECKING:
    from exporter.progress import Progress
    from exporter.reporting.report import Report

SUMMARY = "Take a model down to a runtime: build candidates, time and check them, keep the best."
EXAMPLE = "stepdown export ./model --target onnxruntime --calibration-data texts.jsonl -o out"
EXTRA = "onnxruntime"

# What the options are when nobody says otherwise, from the one place that defines them.
_DEFAULTS = ExportOptions(model="", output=Path())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a Hugging Face directory or hub id, a .gguf file, file.py:factory, a .pt2 program, or an .onnx file",
    )
    add_output(parser, "the result, a directory")
    parser.add_argument(
        "--target", action="append", metavar="NAME", help=f"what will serve it: {', '.join(TARGETS)} (repeatable)"
    )
    parser.add_argument("--task", metavar="NAME", help="what the model does, where its files do not say")
    parser.add_argument(
        "--opset",
        metavar="N",
        type=parse_positive,
        help="ONNX opset of the traced graph (default: the exporter's; fused candidates are of 23 or later)",
    )
    _add_calibration(parser)
    _add_judgement(parser)
    _add_tensorrt(parser)


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("calibration")
    group.add_argument(
        "--calibration-data", metavar="DATA", help=".txt, .jsonl, .csv, .parquet, .npz or module:callable"
    )
    group.add_argument(
        "--statistics",
        metavar="FILE",
        help="what `stepdown calibrate` wrote, in place of collecting; --calibration-data then only judges",
    )
    group.add_argument(
        "--column", action="append", metavar="NAME", help="the column with the text; twice for a pair (repeatable)"
    )
    group.add_argument(
        "--samples",
        metavar="N",
        type=parse_positive,
        default=_DEFAULTS.calibration_samples,
        help="at most so many (%(default)s)",
    )
    group.add_argument(
        "--max-length",
        metavar="N",
        type=parse_positive,
        default=_DEFAULTS.max_length,
        help="tokens a text (%(default)s)",
    )
    group.add_argument(
        "--method", metavar="NAME", help=f"ranges: {', '.join(METHODS)} ({_DEFAULTS.method}, or what the recipe said)"
    )
    group.add_argument(
        "--seed", metavar="N", type=int, default=_DEFAULTS.seed, help="of every random choice (%(default)s)"
    )


def _add_judgement(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("choice")
    group.add_argument(
        "--precision",
        metavar="NAME",
        help=f"{', '.join(PRECISIONS)} ({_DEFAULTS.precision}, or what the recipe said)",
    )
    group.add_argument(
        "--cache-precision",
        metavar="NAME",
        default=_DEFAULTS.cache_precision,
        help=f"what a language model keeps keys and values in: {', '.join(CACHE_PRECISIONS)} (%(default)s)",
    )
    group.add_argument(
        "--max-drop",
        metavar="X",
        type=parse_fraction,
        default=_DEFAULTS.max_drop,
        help="largest accepted loss of accuracy, 1%% or 0.01 (%(default)s)",
    )
    group.add_argument("--eval-data", metavar="DATA", help="labelled data to judge accuracy by")
    group.add_argument(
        "--label-column", metavar="NAME", default=_DEFAULTS.label_column, help="the column with the label (%(default)s)"
    )
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


def _add_tensorrt(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("tensorrt")
    group.add_argument("--profile", action="append", metavar="RANGE", help=f"batch x sequence: {FORM} (repeatable)")
    group.add_argument(
        "--sm",
        metavar="LIST",
        type=parse_sms,
        default=(),
        help=f"GPU generations to build for, TensorRT-RTX ({','.join(map(str, DEFAULT_SMS))})",
    )
    group.add_argument("--trt-library", choices=LIBRARIES, help="which TensorRT builds (the first that works here)")
    group.add_argument("--rest", choices=RESTS, default="fp16", help="type of what is not INT8 (%(default)s)")
    group.add_argument("--int8-attention", action="store_true", help="the products of attention in INT8 too")
    group.add_argument("--lower-only", action="store_true", help="stop at the graph; needs no TensorRT")
    group.add_argument("--sparse-weights", action="store_true", help="let 2:4 weights use sparse kernels")
    group.add_argument("--version-compatible", action="store_true", help="the plan runs with later versions too")
    group.add_argument(
        "--hardware", choices=("this", "same-capability", "ampere-plus"), default="this", help="other GPUs it runs on"
    )
    group.add_argument("--refit", action="store_true", help="weights can be replaced in the plan (not in INT8)")
    group.add_argument("--strip", action="store_true", help="a plan without weights; they come from the ONNX file")
    group.add_argument(
        "--weight-streaming", action="store_true", help="weights that do not fit the GPU stay in the host"
    )
    group.add_argument("--workspace", metavar="SIZE", type=parse_bytes, help="most scratch memory: 512MB, 4GB")
    group.add_argument("--timing-cache", metavar="FILE", type=Path, help="keeps kernel timings between builds")
    group.add_argument("--allow-unpicked", action="store_true", help="accept layers that do not run in INT8 or sparse")


def _read_tensorrt(arguments: argparse.Namespace) -> TensorRtOptions:
    return TensorRtOptions(
        library=arguments.trt_library,
        rest=arguments.rest,
        attention=arguments.int8_attention,
        lower_only=arguments.lower_only,
        build=BuildOptions(
            profiles=tuple(map(parse_profile, arguments.profile or ())),
            sms=arguments.sm,
            sparse=arguments.sparse_weights,
            version_compatible=arguments.version_compatible,
            hardware=arguments.hardware,
            refit=arguments.refit,
            strip=arguments.strip,
            weight_streaming=arguments.weight_streaming,
            workspace_bytes=arguments.workspace,
            timing_cache=arguments.timing_cache,
        ),
        allow_unpicked=arguments.allow_unpicked,
    )


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Export the model and say which candidate was chosen."""
    options = _check_options(arguments)
    _require_builders(options)
    from exporter.pipeline import export
    from exporter.reporting.report import render_ledger, render_table

    result = export(options, progress)
    return Outcome(
        document=result.to_json(),
        text="\n".join([*(line for report in result.reports for line in _tell(report)), str(result.output)]),
        tables=(
            *map(render_table, result.reports),
            *(render_ledger(report) for report in result.reports if report.ledger),
        ),
    )


def _tell(report: Report) -> Iterator[str]:
    from exporter.planning.prediction import tell_comparison

    yield report.verdict
    yield from tell_comparison(report.prediction)


def _require_builders(options: ExportOptions) -> None:
    """Refuse a target that cannot be built here before minutes of tracing.

    What the chosen TensorRT cannot build is refused here too, by the same rules as when it builds.
    """
    from runtimes.registry import get_runtime
    from runtimes.trt.build import check_build
    from runtimes.trt.targets import choose_builder

    for target in options.targets:
        if target != "tensorrt":
            reason = get_runtime(target).why_cannot_build()
            if reason is not None:
                raise MissingDependency(reason)
        elif not options.tensorrt.lower_only:
            build = options.tensorrt.build
            check_build(choose_builder(options.tensorrt.library, build.sms), build)


def _check_options(arguments: argparse.Namespace) -> ExportOptions:
    """Refuse what cannot work before anything heavy is imported."""
    targets = tuple(dict.fromkeys(arguments.target or _DEFAULTS.targets))
    hints = read_export_hints(arguments.model)
    options = ExportOptions(
        model=arguments.model,
        output=arguments.output,
        targets=targets,
        task=arguments.task,
        calibration_data=arguments.calibration_data,
        statistics=arguments.statistics,
        column=tuple(arguments.column or ()),
        calibration_samples=arguments.samples,
        max_length=arguments.max_length,
        eval_data=arguments.eval_data,
        label_column=arguments.label_column,
        metric=arguments.metric,
        precision=arguments.precision or choose_precision(hints.get("precision"), targets),
        method=arguments.method or hints.get("method", _DEFAULTS.method),
        cache_precision=arguments.cache_precision,
        max_drop=arguments.max_drop,
        shapes=tuple(arguments.shape or _DEFAULTS.shapes),
        for_isa=arguments.for_isa,
        threads=arguments.threads,
        opset=arguments.opset,
        seed=arguments.seed,
        force=arguments.force,
        tensorrt=_read_tensorrt(arguments),
    )
    check_options(options)
    refuse_existing(arguments.output, force=arguments.force)
    return options
