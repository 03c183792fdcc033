"""``stepdown compress``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome, format_bytes
from exporter.cli.parsing import add_output, parse_positive, parse_seed, refuse_existing

if TYPE_CHECKING:
    from exporter.compressing.compress import CompressOptions, CompressResult
    from exporter.planning.prediction import Compared
    from exporter.progress import Progress

SUMMARY = "Prune, distil, factorise, quantise-aware train: carry out a recipe on a PyTorch model."
EXAMPLE = (
    "stepdown compress ./minilm --task text-classification --recipe recipe.toml --data train.jsonl --held-out dev.jsonl"
    " -o small\n  stepdown export small -o out"
)
EXTRA = "onnxruntime"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model", metavar="MODEL", help="a Hugging Face directory or hub id, a .gguf file, or file.py:factory"
    )
    add_output(parser, "the checkpoint, a directory; what a killed run needs to go on lies in PATH.partial")
    parser.add_argument("--recipe", metavar="R", required=True, help="a TOML file, or the name of a shipped recipe")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="F",
        help="what to learn from: .txt (plain text for a language model), .jsonl, .csv, .parquet (.npz for a factory)",
    )
    data.add_argument("--held-out", metavar="F", help="what to measure on, of the same kind")
    data.add_argument("--unlabelled", metavar="F", help="further samples, without labels")
    data.add_argument(
        "--column", action="append", metavar="NAME", help="the column with the text; twice for a pair (repeatable)"
    )
    data.add_argument("--label-column", metavar="NAME", help="the column with the label (label)")
    parser.add_argument("--teacher", metavar="MODEL", help="what to distil from, like MODEL (default: MODEL as it is)")
    parser.add_argument(
        "--task", metavar="NAME", help="what the model does, or is to learn, where its files do not say"
    )
    parser.add_argument("--seed", metavar="N", type=parse_seed, help="in place of the recipe's")
    parser.add_argument(
        "--train-precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="what trainings multiply in (fp32); bf16 takes about half the time where the CPU has AMX",
    )
    parser.add_argument("--threads", metavar="N", type=parse_positive, help="threads to compute with (all cores)")


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Carry out the recipe."""
    refuse_existing(arguments.output, force=arguments.force)
    from exporter.compressing.compress import compress
    from exporter.compressing.progress import Narrator

    try:
        with Narrator(progress) as narrator:
            result = compress(_read_options(arguments), narrator.tell)
    except KeyboardInterrupt as stopped:
        raise KeyboardInterrupt("the same command goes on from here") from stopped
    from exporter.planning.prediction import compare_drop

    compared = compare_drop(result.record.recipe, result.record.steps)
    document = {**result.to_json(), **({"prediction": compared} if compared else {})}
    return Outcome(document=document, text="\n".join(_describe(result, compared)))


def _read_options(arguments: argparse.Namespace) -> CompressOptions:
    from exporter.compressing.compress import CompressOptions

    return CompressOptions(
        model=arguments.model,
        recipe=arguments.recipe,
        output=Path(arguments.output),
        task=arguments.task,
        data=arguments.data,
        held_out=arguments.held_out,
        unlabelled=arguments.unlabelled,
        columns=tuple(arguments.column or ()),
        label_column=arguments.label_column,
        teacher=arguments.teacher,
        seed=arguments.seed,
        train_precision=arguments.train_precision,
        threads=arguments.threads,
        force=arguments.force,
    )


def _describe(result: CompressResult, compared: Compared) -> Iterator[str]:
    from exporter.planning.prediction import tell_comparison

    done = ", ".join(str(step["do"]) for step in result.record.steps)
    yield f"{result.output}: {done}; weights {format_bytes(result.weights_bytes)}"
    yield from tell_comparison(compared)
