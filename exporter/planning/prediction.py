"""What a plan predicted of a recipe, beside what came of it.

In: the record of a compressed checkpoint, and what was measured. Out: pairs of numbers, and a sentence for people.
Must not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from compression.prediction import HELD_OUT_BEFORE, Prediction, read_prediction
from exporter.candidates.target import TargetResult
from exporter.options import ExportOptions
from exporter.planning.yardstick import Yardstick
from exporter.probe_feeds import make_feeds
from runtimes.errors import UnsupportedModel
from runtimes.ort import OnnxRuntime, OrtOptions

#: By name, such as ``size_bytes``: what was predicted, and what was found.
Compared = Mapping[str, Mapping[str, float]]

_RECORD = "stepdown.json"
_TIMED = "onnxruntime"
# Random tokens below this are in every vocabulary, and the speed is the same for all.
_VOCABULARY = 2


def read_predicted(model: str) -> Prediction | None:
    """Return the prediction that a checkpoint carries; None where it carries none.

    Raises:
        UnsupportedModel: its record cannot be read.
    """
    path = Path(model).expanduser() / _RECORD
    if not path.is_file():
        return None
    try:
        return read_prediction(json.loads(path.read_text(encoding="utf-8")).get("recipe", {}))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UnsupportedModel(
            f"the prediction cannot be read: {error}", where=str(path), cure="write the checkpoint again"
        ) from error


def compare_drop(recipe: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> Compared:
    """Compare the drop on the plan's samples with that on held-out ones; empty where the latter was not measured.

    Both are of what the recipe's steps and trainings did: ``export`` has not rounded yet.

    Args:
        recipe: As the record of the checkpoint holds it.
        steps: Likewise, what was done, by earlier recipes too.
    """
    predicted = read_prediction(recipe)
    begun = [place for place, step in enumerate(steps) if HELD_OUT_BEFORE in step["facts"]]
    if predicted is None or not begun:
        return {}
    facts = [step["facts"] for step in steps[begun[-1] :]]
    before, after = facts[0][HELD_OUT_BEFORE], [one["held_out"] for one in facts if "held_out" in one]
    if not after or predicted.metric not in before:
        return {}
    expected = predicted.drop - predicted.drop_by_rounding
    found = float(before[predicted.metric]) - float(after[-1][predicted.metric])
    name = f"drop of {predicted.metric} before rounding, on the plan's samples and on held-out ones"
    return {name: {"predicted": expected, "found": found}}


def add_comparison(result: TargetResult, options: ExportOptions) -> TargetResult:
    """Return an export's result with the prediction of its checkpoint in the report, beside what was found.

    The speed is that of the artifact against the model that the plan was made for, in float and on this machine.

    Raises:
        UnsupportedModel: the record of the checkpoint cannot be read.
    """
    predicted = read_predicted(options.model)
    if predicted is None:
        return result
    size = {"predicted": float(predicted.size_bytes), "found": float(result.artifact.size_bytes())}
    compared: dict[str, Mapping[str, float]] = {"size_bytes": size}
    if predicted.speedup and result.report.target == _TIMED and result.report.timed:
        found = predicted.reference_cost / _time(result, predicted, options)
        compared[f"speedup at {predicted.shape}"] = {"predicted": predicted.speedup, "found": found}
    return replace(result, report=replace(result.report, prediction=compared))


def tell_comparison(compared: Compared) -> Iterator[str]:
    """Yield a line for each number."""
    for name, pair in compared.items():
        shown = [
            f"{pair[kind]:,.0f}" if name == "size_bytes" else f"{pair[kind]:.4g}" for kind in ("predicted", "found")
        ]
        yield f"{name}: predicted {shown[0]}, found {shown[1]}"


def _time(result: TargetResult, predicted: Prediction, options: ExportOptions) -> float:
    batch, _, length = predicted.shape.partition("x")
    shape = (int(batch), int(length))
    feeds = make_feeds(result.artifact.inputs, shape, vocabulary=_VOCABULARY, seed=0)
    runtime = OnnxRuntime(OrtOptions(threads=options.threads, providers=(result.entry["provider"],)))
    with closing(runtime.open(result.artifact)) as session:
        return Yardstick(shape=shape, threads=options.threads).time({"model": session.prepare(feeds)})["model"]
