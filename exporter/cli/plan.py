"""``stepdown plan``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome, format_bytes, format_table
from exporter.cli.parsing import (
    parse_fraction,
    parse_positive,
    parse_seed,
    refuse_existing,
    require_folder,
    unknown_word,
)
from exporter.options import TARGETS

if TYPE_CHECKING:
    from exporter.planning.plan import PlanOptions
    from exporter.planning.result import Plan
    from exporter.progress import Progress

SUMMARY = "Measure what each layer can bear, and propose a recipe with its size, speed and drop."
EXAMPLE = (
    "stepdown plan ./classifier --data dev.jsonl --label-column label --max-drop 1% -o recipe.toml\n"
    "  stepdown compress ./classifier --recipe recipe.toml --data train.jsonl -o small"
)
EXTRA = "onnxruntime"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help="a Hugging Face directory or hub id, or file.py:factory")
    parser.add_argument("-o", "--output", metavar="PATH", type=Path, help="where to write the recipe (stdout)")
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    parser.add_argument(
        "--data", metavar="F", required=True, help=".txt, .jsonl, .csv, .parquet (.npz for a factory) to measure on"
    )
    parser.add_argument(
        "--column", action="append", metavar="NAME", help="the column with the text; twice for a pair (repeatable)"
    )
    parser.add_argument(
        "--label-column",
        metavar="NAME",
        help="the column with the label (none: agreement, or of scores correlation, with the model itself)",
    )
    parser.add_argument(
        "--target", metavar="NAME", default=TARGETS[0], help=f"what will serve it: {', '.join(TARGETS)} (%(default)s)"
    )
    parser.add_argument(
        "--max-drop",
        metavar="X",
        type=parse_fraction,
        default=0.01,
        help="largest accepted loss of accuracy, 1%% or 0.01 (%(default)s)",
    )
    parser.add_argument(
        "--samples", metavar="N", type=parse_positive, default=256, help="samples to measure on (%(default)s)"
    )
    parser.add_argument(
        "--max-length", metavar="N", type=parse_positive, default=128, help="tokens a text (%(default)s)"
    )
    parser.add_argument("--task", metavar="NAME", help="what the model does, where its files do not say")
    parser.add_argument("--seed", metavar="N", type=parse_seed, default=0, help="of every random choice (%(default)s)")
    parser.add_argument("--threads", metavar="N", type=parse_positive, help="threads to compute with (all cores)")


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Plan, and write the recipe."""
    if arguments.target not in TARGETS:
        raise unknown_word("target", arguments.target, TARGETS, where="--target")
    if arguments.output is not None:
        refuse_existing(arguments.output, force=arguments.force)
        require_folder(arguments.output)
    from exporter.planning.plan import plan
    from runtimes.atomic import write_text

    found = plan(_read_options(arguments), progress)
    if arguments.output is None:
        return Outcome(document=found.to_json(), text=found.to_text().rstrip("\n"))
    write_text(arguments.output, found.to_text())
    return Outcome(document=found.to_json(), text=f"{_tell_layers(found)}\n\n{arguments.output}: {_tell_steps(found)}")


def _read_options(arguments: argparse.Namespace) -> PlanOptions:
    from exporter.planning.plan import PlanOptions
    from exporter.planning.subject import SubjectOptions

    return PlanOptions(
        subject=SubjectOptions(
            model=arguments.model,
            data=arguments.data,
            columns=tuple(arguments.column or ()),
            label_column=arguments.label_column,
            samples=arguments.samples,
            max_length=arguments.max_length,
            task=arguments.task,
            seed=arguments.seed,
        ),
        target=arguments.target,
        max_drop=arguments.max_drop,
        threads=arguments.threads,
    )


def _tell_layers(found: Plan) -> str:
    """Return a table: for each method and setting the layers that bear it best and worst, by how far answers move."""
    settings = dict.fromkeys((one.method, one.setting) for one in found.sensitivities)
    rows = []
    for method, setting in settings:
        layers = [one for one in found.sensitivities if (one.method, one.setting) == (method, setting)]
        ranked = sorted(layers, key=lambda one: one.change.distance)
        ends = [(one.layer, f"{100 * one.change.drop:.2f}") for one in (ranked[0], ranked[-1])]
        rows.append([method, setting, *ends[0], *ends[1]])
    return format_table(("method", "setting", "bears it best", "points", "worst", "points"), rows)


def _tell_steps(found: Plan) -> str:
    predicted = found.prediction
    parts = [", ".join(step.do for step in found.recipe.steps), format_bytes(predicted.size_bytes)]
    if predicted.speedup:
        parts.append(f"{predicted.speedup:.2f} times as fast as float at {predicted.shape}")
    parts.append(f"{100 * predicted.drop:.2f} points of {predicted.metric}")
    return f"{parts[0]}; predicted: {', '.join(parts[1:])}"
