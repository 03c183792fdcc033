"""``stepdown calibrate``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome, format_bytes
from exporter.cli.parsing import add_output, parse_positive, parse_shard, refuse_existing
from exporter.collect_statistics import CollectOptions
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from calibration.statistics import CalibrationStatistics
    from exporter.progress import Progress

SUMMARY = "Collect calibration statistics alone, whole or in shards, and merge shards."
EXAMPLE = (
    "stepdown calibrate ./model --calibration-data texts.jsonl --shard 0/2 -o part0\n"
    "  stepdown calibrate ./model --calibration-data texts.jsonl --shard 1/2 -o part1\n"
    "  stepdown calibrate --merge part0 part1 -o statistics\n"
    "  stepdown export ./model --statistics statistics -o out"
)
EXTRA = "onnxruntime"

# What the options are when nobody says otherwise, from the one place that defines them.
_DEFAULTS = CollectOptions(model="", data="")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a Hugging Face directory or hub id, a .gguf file, file.py:factory, a .pt2 program, or an .onnx file",
    )
    add_output(parser, "the statistics, one file")
    parser.add_argument("--merge", metavar="FILE", nargs="+", type=Path, help="merge these shards; they must be all")
    parser.add_argument(
        "--calibration-data", metavar="DATA", help=".txt, .jsonl, .csv, .parquet, .npz or module:callable"
    )
    parser.add_argument(
        "--column", action="append", metavar="NAME", help="the column with the text; twice for a pair (repeatable)"
    )
    parser.add_argument(
        "--shard", metavar="I/N", type=parse_shard, default=(0, 1), help="collect part I of N, counted from 0 (0/1)"
    )
    parser.add_argument(
        "--samples", metavar="N", type=parse_positive, default=_DEFAULTS.samples, help="at most so many (%(default)s)"
    )
    parser.add_argument(
        "--max-length",
        metavar="N",
        type=parse_positive,
        default=_DEFAULTS.max_length,
        help="tokens a text (%(default)s)",
    )
    parser.add_argument("--task", metavar="NAME", help="what the model does, where its files do not say")
    parser.add_argument("--opset", metavar="N", type=parse_positive, help="ONNX opset (default: the exporter's)")


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Collect or merge, and write the file."""
    refuse_existing(arguments.output, force=arguments.force)
    if not arguments.output.parent.is_dir():
        raise UsageError("there is no such folder", where=str(arguments.output.parent), cure="make it first")
    from calibration.statistics import merge_files, write

    if arguments.merge:
        if arguments.model or arguments.calibration_data:
            raise UsageError("merging takes statistics only", where="--merge", cure="leave MODEL and data out")
        statistics = merge_files(arguments.merge)
    else:
        statistics = _collect(arguments, progress)
    write(arguments.output, statistics)
    return _describe(arguments.output, statistics)


def _collect(arguments: argparse.Namespace, progress: Progress) -> CalibrationStatistics:
    if not arguments.model or not arguments.calibration_data:
        raise UsageError(
            "nothing to calibrate, or nothing to calibrate with",
            where="stepdown calibrate",
            cure="give MODEL and --calibration-data, or --merge FILE...",
        )
    from exporter.collect_statistics import collect_statistics

    options = CollectOptions(
        model=arguments.model,
        data=arguments.calibration_data,
        columns=tuple(arguments.column or ()),
        samples=arguments.samples,
        max_length=arguments.max_length,
        shard=arguments.shard,
        task=arguments.task,
        opset=arguments.opset,
    )
    return collect_statistics(options, progress)


def _describe(output: Path, statistics: CalibrationStatistics) -> Outcome:
    shards = ", ".join(f"{shard}/{statistics.shard_count}" for shard in statistics.shards)
    size = output.stat().st_size
    document = {
        "output": str(output),
        "bytes": size,
        "samples": statistics.samples,
        "shards": list(statistics.shards),
        "shard_count": statistics.shard_count,
        "tensors": list(statistics.tensors),
        "dead_tensors": list(statistics.dead_tensors()),
    }
    counts = f"{statistics.samples} samples, {len(statistics.tensors)} tensors, {format_bytes(size)}"
    text = f"{output}: shard {shards}, {counts}"
    dead = statistics.dead_tensors()
    if dead:
        text += f"\nalways zero: {', '.join(dead)}"
    return Outcome(document=document, text=text)
