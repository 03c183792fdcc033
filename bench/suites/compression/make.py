"""Makes one row of the compression suite, stage by stage: compress, export, a plan, accuracy, times, a record.

In: a row, a task and a seed. Out: a record, kept (:mod:`bench.suites.compression.records`). Each stage leaves a file or
a folder, and is passed over where that is there: a suite that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.peers.stepdown_cli import trace_float
from bench.suites.compression.commands import Commands
from bench.suites.compression.data import TaskData
from bench.suites.compression.records import (
    NO_TIER,
    Plan,
    Quality,
    Record,
    describe_origin,
    read_record,
    write_record,
)
from bench.suites.compression.rows import TRAIN_PRECISION, Row, describe_row, read_recipe, read_shipped
from bench.suites.compression.times import find_model, time_artifact
from bench.timing.measure import MeasurePlan
from runtimes.artifact import hash_file, read_manifest
from runtimes.atomic import write_text
from runtimes.errors import UnsupportedModel
from runtimes.ort import describe_onnx

WEIGHTS, TOKENIZER, CONFIG = "model.safetensors", "tokenizer.json", "config.json"
_TEACHER = "finetune"
_MADE_OF = "made-of.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A fine-tuned checkpoint, its plain float graph and how good it is."""

    checkpoint: Path
    graph: Path
    quality: Quality

    def weights_bytes(self) -> int:
        """Bytes of the weights alone."""
        return (self.checkpoint / WEIGHTS).stat().st_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where rows are made and their records kept, and with what; ``timed`` is whether they are timed now or later."""

    work: Path
    records: Path
    commands: Commands
    plan: MeasurePlan
    say: Callable[[str], None]
    timed: bool = True


def make_teacher(bench: Bench, encoder: Path, data: TaskData, *, seed: int = 0) -> Teacher:
    """Fine-tune the encoder on a task and judge it, unless that was done."""
    folder = bench.work / f"{data.name}-teacher"
    made_of = {"encoder": hash_file(encoder / WEIGHTS), "data": hash_file(data.train), "seed": seed}
    start_anew(folder, {**made_of, "recipe": read_shipped(_TEACHER)})
    checkpoint = folder / "checkpoint"
    if not checkpoint.is_dir():
        bench.say(f"{data.name}: the teacher")
        words = ["compress", encoder, "--task", "text-classification", "--recipe", _TEACHER, "-o", checkpoint]
        bench.commands.run(*words, "--data", data.train, "--held-out", data.held_out, "--seed", seed)
    graph = trace_float(checkpoint, folder / "float")
    return Teacher(checkpoint=checkpoint, graph=graph, quality=_judge(bench, checkpoint, data, folder))


def make_row(bench: Bench, key: str, row: Row, data: TaskData, teacher: Teacher, seed: int) -> Record | None:
    """Make what is not made yet of a row, and return what was measured; None where the times are left to a later run.

    Raises:
        UnsupportedModel: it cannot be made; the message is what stepdown said.
        Inconclusive: the time is up.
    """
    folder, data_sha256 = find_folder(bench.work, key, data.name, seed), hash_file(data.train)
    kept = read_record(bench.records, key, data.name, seed)
    if kept is not None and kept.origin.data_sha256 == data_sha256:
        return kept
    made_of = {"teacher": hash_file(teacher.checkpoint / WEIGHTS), "data": data_sha256}
    start_anew(folder, {**made_of, "row": describe_row(key, row)})
    checkpoint = folder / "checkpoint"
    if not checkpoint.is_dir():
        bench.say(f"{data.name} {key} seed {seed}: compressing")
        write_text(folder / "recipe.toml", read_recipe(key, row))
        words = ["compress", teacher.checkpoint, "--recipe", folder / "recipe.toml", "-o", checkpoint, "--seed", seed]
        words += ["--data", data.train, "--held-out", data.held_out, "--unlabelled", data.unlabelled]
        words += ["--train-precision", TRAIN_PRECISION]
        bench.commands.run(*words)
    return _finish(bench, key, row, data, teacher, seed)


def _finish(bench: Bench, key: str, row: Row, data: TaskData, teacher: Teacher, seed: int) -> Record | None:
    """Export, judge and time the checkpoint of a row, and write its record."""
    folder = find_folder(bench.work, key, data.name, seed)
    checkpoint, exported = folder / "checkpoint", folder / "onnxruntime"
    if not exported.is_dir():
        bench.say(f"{data.name} {key} seed {seed}: exporting")
        bench.commands.run("export", checkpoint, "-o", exported, *_list_data(data), *row.export)
    quality = _judge(bench, exported, data, folder)
    plan = _build_plan(bench, checkpoint, row, data, folder)
    if not bench.timed:
        return None
    bench.commands.check_time()
    bench.say(f"{data.name} {key} seed {seed}: timing")
    texts = data.read_test_texts()
    # Those of the teacher stand before those of the row.
    steps = _read_steps(checkpoint)[len(_read_steps(teacher.checkpoint)) :]
    record = Record(
        key=key,
        task=data.name,
        seed=seed,
        origin=describe_origin(describe_row(key, row), data),
        quality=quality,
        teacher=teacher.quality,
        artifact_bytes=sum_bytes(exported),
        model_bytes=describe_onnx(find_model(exported)).size_bytes(),
        teacher_bytes=teacher.weights_bytes(),
        candidate=read_manifest(exported).artifacts["onnxruntime"]["candidate"],
        plan=plan,
        times=time_artifact(
            exported, teacher.checkpoint, teacher.graph, texts, threads=bench.commands.threads, plan=bench.plan
        ),
        train_seconds=sum(step["seconds"] for step in steps),
        facts=tuple({"do": step["do"], "facts": step["facts"]} for step in steps),
    )
    write_record(bench.records, record)
    return record


def find_folder(work: Path, key: str, task: str, seed: int) -> Path:
    """Return where a row is made."""
    return work / f"{task}-{key}-seed{seed}"


def start_anew(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Empty a folder whose content was made of something else."""
    note, text = folder / _MADE_OF, json.dumps(made_of, sort_keys=True) + "\n"
    if folder.is_dir() and not (note.is_file() and note.read_text(encoding="utf-8") == text):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(note, text)


def sum_bytes(exported: Path) -> int:
    """Return the bytes of what serving needs: model, tokenizer and configuration."""
    beside = sum((exported / name).stat().st_size for name in (TOKENIZER, CONFIG) if (exported / name).is_file())
    return describe_onnx(find_model(exported)).size_bytes() + beside


def _read_steps(checkpoint: Path) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = json.loads((checkpoint / "stepdown.json").read_text(encoding="utf-8"))["steps"]
    return steps


def _list_data(data: TaskData) -> tuple[object, ...]:
    return ("--calibration-data", data.train, "--eval-data", data.held_out)


def _judge(bench: Bench, model: Path, data: TaskData, folder: Path) -> Quality:
    path = folder / "quality.json"
    if not path.is_file():
        bench.say(f"{folder.name}: judging")
        words = ("eval", model, "--data", data.test, "--metric")
        told = {metric: bench.commands.run(*words, metric) for metric in ("accuracy", "macro-f1")}
        found = Quality(
            accuracy=told["accuracy"]["value"],
            macro_f1=told["macro-f1"]["value"],
            samples=told["accuracy"]["samples"],
        )
        write_text(path, json.dumps(asdict(found)) + "\n")
    return Quality(**json.loads(path.read_text(encoding="utf-8")))


def _build_plan(bench: Bench, checkpoint: Path, row: Row, data: TaskData, folder: Path) -> Plan:
    """Build a plan; what TensorRT does not take is a finding, not an end."""
    path = folder / "plan.json"
    if not path.is_file():
        bench.say(f"{folder.name}: a plan")
        out = folder / "tensorrt"
        try:
            words = ("export", checkpoint, "-o", out, "--target", "tensorrt")
            told = bench.commands.run(*words, *_list_data(data), *row.plan)
            (report,) = told["reports"]
            chosen = next(row for row in report["rows"] if row["chosen"])
            plan = Plan(tier=report["tier"], size_bytes=chosen["size_bytes"])
        except UnsupportedModel as error:
            plan = Plan(tier=NO_TIER, why=error.what)
        shutil.rmtree(out, ignore_errors=True)
        write_text(path, json.dumps(asdict(plan)) + "\n")
    return Plan(**json.loads(path.read_text(encoding="utf-8")))
