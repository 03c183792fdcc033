"""``stepdown compress``: a model, a recipe and data in; a smaller checkpoint out, which ``export`` reads.

In: CompressOptions. Out: a directory that appears whole or not at all; what a killed run needs to go on lies beside it
until then. torch is imported by what is called, not here.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.compressing.data import DEFAULT_LABEL, Labels, Texts, find_labels, read_texts
from exporter.compressing.reader import (
    HELD_OUT,
    TRAIN,
    UNLABELLED,
    Reading,
    ReadSamples,
    read_arrays_once,
    read_texts_again,
)
from exporter.compressing.windows import name_end, read_windows
from exporter.source import GENERATION, Source, open_source, read_config
from exporter.tracing.checkpoint_source import unpack
from exporter.tracing.companions import CONFIG, TOKENIZER, copy_companions
from exporter.tracing.quiet import quiet_libraries
from runtimes.artifact import hash_file
from runtimes.atomic import new_directory
from runtimes.errors import DataError, UsageError

if TYPE_CHECKING:
    from compression.checkpoint import Record
    from compression.compress import Job
    from compression.objectives.precision import Precision
    from compression.recipe import Recipe
    from exporter.tracing.trainee import Teacher, Trainee

Tell = Callable[[Mapping[str, object]], None]

CLASSIFICATION = "text-classification"
METRICS_NAME = "metrics.jsonl"
_HEAD = "ForSequenceClassification"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressOptions:
    """Options of one compression.

    Attributes:
        model: A Hugging Face directory or hub id, a ``.gguf`` file, or ``file.py:factory``.
        recipe: A TOML file, or the name of a recipe that comes with stepdown.
        output: The new directory.
        task: What the model does, or is to learn; None where its files say so.
        data: Samples to learn from.
        held_out: Samples to measure on.
        unlabelled: Further samples to learn from without labels.
        columns: The column with the text, or two for a pair; empty finds them by name.
        label_column: The column with the label; None is ``label`` where the task has labels.
        teacher: A checkpoint to learn from; None is the model as it was.
        seed: In place of the recipe's.
        train_precision: What trainings compute their products in.
        threads: To compute with; None leaves it to torch.
        force: Whether an existing ``output`` is replaced.
    """

    model: str
    recipe: str
    output: Path
    task: str | None = None
    data: str | None = None
    held_out: str | None = None
    unlabelled: str | None = None
    columns: tuple[str, ...] = ()
    label_column: str | None = None
    teacher: str | None = None
    seed: int | None = None
    train_precision: Precision = "fp32"
    threads: int | None = None
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressResult:
    """Where the checkpoint lies, how large its weights are, and what every step found and did."""

    output: Path
    weights_bytes: int
    record: Record

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON data."""
        return {
            "output": str(self.output),
            "weights_bytes": self.weights_bytes,
            "steps": list(self.record.steps),
            "export": dict(self.record.export),
        }


def compress(options: CompressOptions, tell: Tell) -> CompressResult:
    """Carry out the recipe, or go on with one that was killed; ``tell`` is given every entry of the metrics.

    Raises:
        UsageError: an option or the recipe is wrong, the output exists, or a run begun there was another.
        DataError: the data cannot be used, or a step needs what is not there.
        UnsupportedModel: the model cannot be read, or has not the layers a step is for.
        BudgetMissed: a training diverged; what the steps before made is kept.
        OutputError: no room, or no permission; a previous output is untouched.
    """
    from compression.checkpoint import WEIGHTS_NAME, read_record
    from compression.compress import run_recipe

    if options.output.exists() and not options.force:
        raise UsageError("the output exists", where=str(options.output), cure="pass --force to replace it")
    recipe = _read_recipe(options)
    begun = options.output.with_name(f"{options.output.name}.partial")
    with tempfile.TemporaryDirectory(prefix="stepdown.") as scratch:
        source = _open_model(options, Path(scratch))
        job, trainee = _make_job(options, source, recipe, Path(scratch), tell)
        checkpoint = run_recipe(job, begun)
        with new_directory(options.output, force=options.force) as staging:
            shutil.copytree(checkpoint, staging, dirs_exist_ok=True)
            shutil.copyfile(begun / METRICS_NAME, staging / METRICS_NAME)
            trainee.finish(staging)
    shutil.rmtree(begun)
    weights = (options.output / WEIGHTS_NAME).stat().st_size
    return CompressResult(output=options.output, weights_bytes=weights, record=read_record(options.output))


def _read_recipe(options: CompressOptions) -> Recipe:
    from compression.recipe import find_recipe, read_recipe

    recipe = read_recipe(find_recipe(options.recipe))
    return recipe if options.seed is None else replace(recipe, seed=options.seed)


def _open_model(options: CompressOptions, scratch: Path) -> Source:
    folder = Path(options.model).expanduser()
    if (folder / "pytorch_model.bin").is_file() and not any(folder.glob("*.safetensors")):
        from exporter.tracing.pickled import convert_pickle

        return open_source(str(convert_pickle(folder, scratch / "source")), task=options.task)
    return open_source(options.model, task=options.task)


def _make_job(
    options: CompressOptions, named: Source, recipe: Recipe, scratch: Path, tell: Tell
) -> tuple[Job, Trainee]:
    from compression.checkpoint import read_record
    from compression.compress import Job
    from exporter.compressing.factor_costs import measure_factor_gain
    from exporter.tracing.huggingface import FreshHead
    from exporter.tracing.trainee import limit_threads, open_trainee

    limit_threads(options.threads)
    source = unpack(named, scratch / "unpacked")
    paths = _list_data(options)
    texts = {} if source.kind == "factory" else _read_texts(paths, options, source)
    fresh = _lacks_head(source)
    head = FreshHead(labels=_find_fresh_labels(texts).names, seed=recipe.seed) if fresh else None
    trainee = open_trainee(source, head)
    files = _copy_tokenizer(source, scratch / "model")
    teacher = _open_teacher(options, source, trainee, files) if options.teacher or not fresh else None
    job = Job(
        recipe=recipe,
        load_model=trainee.load,
        read_samples=_make_window_reader(texts, trainee, teacher, recipe.max_length, files)
        if source.task == GENERATION
        else _make_reader(options, paths, texts, trainee, teacher, recipe.max_length),
        load_teacher=None if teacher is None else teacher.load,
        files=tuple(sorted(files.iterdir())),
        source=_hash_source(named),
        record=read_record(source.path),
        data=_describe_data(options, paths, source),
        tell=tell,
        factor_gain=partial(measure_factor_gain, threads=options.threads),
        precision=options.train_precision,
    )
    return job, trainee


def _list_data(options: CompressOptions) -> dict[str, Path]:
    given = {TRAIN: options.data, HELD_OUT: options.held_out, UNLABELLED: options.unlabelled}
    return {name: Path(spec) for name, spec in given.items() if spec is not None}


def _read_texts(paths: Mapping[str, Path], options: CompressOptions, source: Source) -> dict[str, Texts]:
    classifies = source.task == CLASSIFICATION
    if options.label_column is not None and not classifies:
        cure = f"leave it out, or add --task {CLASSIFICATION}"
        raise UsageError(f"{source.task} learns from no labels", where="--label-column", cure=cure)
    label = (options.label_column or DEFAULT_LABEL) if classifies else None
    return {
        name: read_texts(path, options.columns, None if name == UNLABELLED else label) for name, path in paths.items()
    }


def _lacks_head(source: Source) -> bool:
    """Whether the head of the task is yet to be trained: a classifier's, on an encoder that has none."""
    if source.kind != "huggingface" or source.task != CLASSIFICATION:
        return False
    return not any(str(name).endswith(_HEAD) for name in read_config(source.path).get("architectures") or [])


def _find_fresh_labels(texts: Mapping[str, Texts]) -> Labels:
    if TRAIN not in texts:
        cure = "pass --data FILE with a column of labels, or a model that has its classifier"
        raise DataError("a new classifier needs labelled data to learn from", where="--data", cure=cure)
    return find_labels(texts[TRAIN])


def _open_teacher(options: CompressOptions, source: Source, trainee: Trainee, files: Path) -> Teacher:
    from exporter.tracing.trainee import make_teacher, open_trainee

    if options.teacher is None:
        return make_teacher(trainee, files / TOKENIZER)
    named = unpack(open_source(options.teacher, task=source.task), files.with_name("unpacked-teacher"))
    return make_teacher(open_trainee(named, None), _copy_tokenizer(named, files.with_name("teacher")) / TOKENIZER)


def _copy_tokenizer(source: Source, folder: Path) -> Path:
    folder.mkdir()
    if source.kind == "huggingface":
        with quiet_libraries():
            copy_companions(source.path, folder)
        (folder / CONFIG).unlink()
    return folder


def _make_reader(
    options: CompressOptions,
    paths: Mapping[str, Path],
    texts: Mapping[str, Texts],
    trainee: Trainee,
    teacher: Teacher | None,
    max_length: int,
) -> ReadSamples:
    if paths and not texts:
        return lambda _files: read_arrays_once(paths, trainee.inputs, options.label_column)
    longest = min(max_length, trainee.max_length or max_length)
    told = None
    if teacher is not None and teacher.tokenizer.is_file():
        told = Reading(tokenizer=teacher.tokenizer, inputs=teacher.inputs)
    return partial(read_texts_again, texts, longest, trainee.inputs, Labels(names=trainee.labels), told)


def _make_window_reader(
    texts: Mapping[str, Texts], trainee: Trainee, teacher: Teacher | None, max_length: int, files: Path
) -> ReadSamples:
    told = None if teacher is None or not teacher.tokenizer.is_file() else teacher.tokenizer
    longest = min(max_length, trainee.max_length or max_length)
    return partial(read_windows, texts, longest, trainee.inputs, name_end(files / TOKENIZER, trainee.end), told)


def _hash_source(source: Source) -> dict[str, str]:
    files = [source.path] if source.path.is_file() else sorted(p for p in source.path.iterdir() if p.is_file())
    return {path.name: hash_file(path) for path in files}


def _describe_data(options: CompressOptions, paths: Mapping[str, Path], source: Source) -> dict[str, Any]:
    """Return what must be the same for a killed run to go on, besides recipe and model."""
    described: dict[str, Any] = {name: hash_file(path) for name, path in paths.items()}
    described |= {"task": source.task, "columns": list(options.columns), "label_column": options.label_column}
    if options.teacher is not None:
        described["teacher"] = _hash_source(open_source(options.teacher, task=source.task))
    return described
