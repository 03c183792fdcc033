"""Carries out a recipe: one step after the other, a checkpoint behind each, on from there after a kill.

In: a :class:`Job` of callables that read the user's model and data. Out: a folder with the last checkpoint.
Every step starts from the checkpoint of the one before, as a run that goes on must. Imports torch.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from compression.checkpoint import CHECKPOINT_FILES, Record, read_record, save_compressed
from compression.context import Context
from compression.factors.rank_limits import Gain
from compression.models.forward import predicts_next
from compression.objectives.measure import check_measurable
from compression.objectives.objective import SpecialTokens
from compression.objectives.precision import Precision
from compression.options import OptionError, plain_options
from compression.prediction import HELD_OUT_BEFORE
from compression.recipe import ENCODER_STEPS, Facts, MakesModel, Recipe, Step, import_step
from compression.samples import SampleSets
from compression.training.loop import Logbook
from compression.training.workplace import Workplace, open_workplace
from runtimes.atomic import new_directory
from runtimes.errors import BudgetMissed, UnsupportedModel, UsageError

Tell = Callable[[Mapping[str, object]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to do, and how to read what the user gave.

    Attributes:
        recipe: The steps.
        load_model: Loads a checkpoint that this module wrote; None is the user's model. In float32, evaluation mode.
        read_samples: Tokenises the user's data with the tokenizer files of a folder.
        files: The tokenizer files of the user's model.
        load_teacher: Loads the teacher; None where there is none.
        source: What the model was made from: names to sha256.
        record: What earlier recipes did to the model.
        data: What the data is: names to sha256 and columns.
        tell: Told every entry of the metrics.
        factor_gain: Times a linear against two factors; None where nothing can be timed.
        precision: What trainings compute their products in.
    """

    recipe: Recipe
    load_model: Callable[[Path | None], nn.Module]
    read_samples: Callable[[Path], tuple[SampleSets, SpecialTokens]]
    tell: Tell
    files: tuple[Path, ...] = ()
    load_teacher: Callable[[], nn.Module] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    record: Record = field(default_factory=Record)
    data: Mapping[str, Any] = field(default_factory=dict)
    factor_gain: Gain | None = None
    precision: Precision = "fp32"

    def describe(self) -> dict[str, Any]:
        """Return what must be the same for a run to go on, but for the steps that are not done yet."""
        made_of = {"recipe": self.recipe.to_json(), "source": dict(self.source), "data": dict(self.data)}
        return {**made_of, "train_precision": self.precision}


def run_recipe(job: Job, folder: Path) -> Path:
    """Carry out the recipe in ``folder``; what a killed or failed run with the same first steps did there is kept.

    Returns:
        The checkpoint behind the last step, below ``folder``.

    Raises:
        UsageError: ``folder`` belongs to another run, or an option does not fit the model (the place in the recipe is
            named).
        DataError: a step needs data, or labels, that are not there, or nothing can be measured on the held-out data.
        UnsupportedModel: the model has not the layers a step is for.
        BudgetMissed: a training diverged; the checkpoint of the step before is kept.
        OutputError: no room.
    """
    count = len(job.recipe.steps)
    with open_workplace(folder, job.describe()) as place:
        for number in range(place.count_done(), count):
            _run_step(job, place, number)
        return place.checkpoint(count - 1)


def _run_step(job: Job, place: Workplace, number: int) -> None:
    step, before = job.recipe.steps[number], place.checkpoint(number - 1) if number else None
    head, words = {"step": number, "do": step.do}, f"steps[{number}] ({step.do})"
    job.tell({**head, "steps": len(job.recipe.steps)})
    started = time.monotonic()
    work = place.open_step(number)
    files = _copy_files(job, before, work / "files")
    model = job.load_model(before)
    sets, tokens = job.read_samples(files)
    if sets.held_out is not None:
        check_measurable(model, sets.held_out, tokens)
    context = Context(
        seed=job.recipe.seed,
        step=number,
        train_samples=sets.train,
        held_out=sets.held_out,
        unlabelled=sets.unlabelled,
        tokens=tokens,
        files=files,
        load_teacher=job.load_teacher,
        read_samples=job.read_samples,
        factor_gain=job.factor_gain,
        precision=job.precision,
        logbook=Logbook(folder=work, journal=place.journal, tell=job.tell, head=head, place=words),
    )
    found = _measure_before(model, job, context)
    try:
        model, facts = _apply(model, step, context)
    except BudgetMissed:
        place.give_up(number)
        raise
    spent = {"facts": {**found, **facts}, "seconds": round(time.monotonic() - started, 1)}
    record = _extend(read_record(before) if before is not None else job.record, job, step, spent)
    context.logbook.write(spent)
    with new_directory(place.checkpoint(number), force=True) as staging:
        save_compressed(model, staging, record)
        shutil.copytree(files, staging, dirs_exist_ok=True)
    place.remove_all_but(number)


def _measure_before(model: nn.Module, job: Job, context: Context) -> Facts:
    """Return what the user's model was on held-out samples, where a prediction is to be compared with the drop."""
    held_out = context.held_out
    if context.step or job.recipe.predicted is None or held_out is None or held_out.labels is None:
        return {}
    return {HELD_OUT_BEFORE: context.evaluate(model)}


def _apply(model: nn.Module, step: Step, context: Context) -> tuple[nn.Module, Facts]:
    """Do the step; an error that names one of its options says where in the recipe that stands.

    Returns:
        The model that goes on, and what the step found and did.
    """
    place, names = f"steps[{context.step}]", [entry.name for entry in dataclasses.fields(step.options)]
    try:
        if step.do in ENCODER_STEPS and predicts_next(model):
            raise UnsupportedModel(
                f"{step.do} is for encoders: with a cache every token goes through every layer",
                cure="leave the step out; drop-layers and prune-neurons work",
            )
        module = import_step(step.do)
        made = module.make(model, step.options, context) if isinstance(module, MakesModel) else model
        return made, module.apply(made, step.options, context)
    except OptionError as error:
        raise UsageError(error.problem, where=f"{place}.{error.field}", cure=error.cure) from error
    except (UsageError, UnsupportedModel) as error:
        where = f"{place}.{error.where}" if error.where in names else error.where or f"{place} ({step.do})"
        raise type(error)(error.what, where=where, cure=error.cure) from error


def _extend(record: Record, job: Job, step: Step, spent: Mapping[str, Any]) -> Record:
    facts = dict(spent["facts"])
    export = {**record.export, **facts.pop("export", {})}
    how = {"options": plain_options(step.options), "train_precision": job.precision}
    done = {"do": step.do, **how, **spent, "facts": facts}
    return Record(recipe=job.recipe.to_json(), source=job.source, steps=(*record.steps, done), export=export)


def _copy_files(job: Job, before: Path | None, target: Path) -> Path:
    """Fill the folder with the tokenizer files of the checkpoint before: a killed run may have changed its own."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    files = job.files if before is None else [path for path in before.iterdir() if path.name not in CHECKPOINT_FILES]
    for path in files:
        shutil.copy(path, target / path.name)
    return target
