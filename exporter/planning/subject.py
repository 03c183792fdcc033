"""A model to plan for, and samples of its user: some to measure on, others to look at.

In: what the user named. Out: :class:`PlanSubject`. torch is imported by what is called, not here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.compressing.data import Labels, read_texts
from exporter.compressing.reader import TRAIN, read_arrays_once, read_texts_again
from exporter.source import GENERATION, Source, open_source, read_config
from exporter.tracing.companions import TOKENIZER, copy_companions
from exporter.tracing.quiet import quiet_libraries
from runtimes.errors import DataError, UnsupportedModel, UsageError

if TYPE_CHECKING:
    from compression.objectives.objective import SpecialTokens
    from compression.samples import Samples

_CLASSIFICATION, _HEAD = "text-classification", "ForSequenceClassification"
# Fewer tell nothing of a metric.
_FEWEST_SAMPLES = 8
# Looked at by steps that fit what stays to what leaves, again and again: some thousand tokens tell a covariance.
_SEEN_SAMPLES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectOptions:
    """What the user named; see :class:`exporter.planning.plan.PlanOptions`."""

    model: str
    data: str
    columns: tuple[str, ...] = ()
    label_column: str | None = None
    samples: int = 256
    max_length: int = 128
    task: str | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSubject:
    """What a plan works on.

    Attributes:
        source: The model as the user named it.
        model: A torch module in float32, which only compression may name by its type.
        everything: All samples, in their order.
        judged: To measure on.
        seen: Others to look at, without labels; the same ones where there are too few.
        tokens: The ids that are no words.
        tokenizer: The folder with its ``tokenizer.json``; None where it has none.
        max_length: The longest sequence it takes; None where nothing limits it.
    """

    source: Source
    model: Any
    everything: Samples
    judged: Samples
    seen: Samples
    tokens: SpecialTokens
    tokenizer: Path | None
    max_length: int | None = None

    @property
    def classifies(self) -> bool:
        """Whether its answers are logits of classes, or a score."""
        return self.source.task == _CLASSIFICATION


def open_subject(options: SubjectOptions, scratch: Path) -> PlanSubject:
    """Load the model and read the samples; writes below ``scratch`` only.

    Raises:
        UsageError: labels are named and the task has none.
        DataError: the data cannot be used, or is too little.
        UnsupportedModel: the model cannot be read, predicts the next token, or its head is yet to be trained.
    """
    from exporter.tracing.trainee import open_trainee

    source = open_source(options.model, task=options.task)
    _refuse_language_model(source)
    _refuse_untrained(source)
    trainee = open_trainee(source, None)
    folder = scratch / "tokenizer"
    folder.mkdir()
    path = Path(options.data)
    if source.kind == "factory":
        sets, tokens = read_arrays_once({TRAIN: path}, trainee.inputs, options.label_column)
    else:
        if options.label_column is not None and source.task != _CLASSIFICATION:
            raise UsageError(f"{source.task} is measured without labels", where="--label-column", cure="leave it out")
        with quiet_libraries():
            copy_companions(source.path, folder)
        longest = min(options.max_length, trainee.max_length or options.max_length)
        texts = {TRAIN: read_texts(path, options.columns, options.label_column)}
        sets, tokens = read_texts_again(texts, longest, trainee.inputs, Labels(names=trainee.labels), None, folder)
    assert sets.train is not None, "the data was read as such"
    judged, seen = _split(sets.train, options)
    return PlanSubject(
        source=source,
        model=trainee.load(None),
        everything=sets.train,
        judged=judged,
        seen=replace(seen, labels=None),
        tokens=tokens,
        tokenizer=folder if (folder / TOKENIZER).is_file() else None,
        max_length=trainee.max_length,
    )


def _refuse_language_model(source: Source) -> None:
    if source.task != GENERATION:
        return
    from compression.recipe import RECIPES

    names = sorted(path.stem for path in RECIPES.glob("decoder-*.toml"))
    raise UnsupportedModel(
        "a language model cannot be planned for: what answers of whole texts lose says little of next tokens",
        where=source.reference,
        cure=f"stepdown compress it with a recipe that comes with stepdown: {', '.join(names)}",
    )


def _refuse_untrained(source: Source) -> None:
    if source.kind != "huggingface" or source.task != _CLASSIFICATION:
        return
    if not any(str(name).endswith(_HEAD) for name in read_config(source.path).get("architectures") or []):
        raise UnsupportedModel(
            "its classifier is yet to be trained: there is nothing to measure a drop from",
            where=source.reference,
            cure='train it first: stepdown compress with a recipe of one step, do = "finetune"',
        )


def _split(samples: Samples, options: SubjectOptions) -> tuple[Samples, Samples]:
    if len(samples) < _FEWEST_SAMPLES:
        raise DataError(
            f"{len(samples)} samples are too few to measure anything on",
            where=options.data,
            cure=f"give some hundred, and at least {_FEWEST_SAMPLES}",
        )
    order = np.random.default_rng(options.seed).permutation(len(samples)).tolist()
    judged, others = order[: options.samples], order[options.samples :][:_SEEN_SAMPLES]
    return samples.subset(judged), samples.subset(others if len(others) >= _FEWEST_SAMPLES else judged[:_SEEN_SAMPLES])
