"""Data for calibration and data for judging, kept apart.

In: options. Out: the calibration part, and judges on samples that calibration never sees: one for the decision, one
for tuning (which layers stay in float), on different samples. Without data, random inputs serve, and it is said so.
Where statistics were collected before, which samples they are of is not known: the ones of this data that would have
come first are passed over, or, where there are no others, it is said that calibration may have seen them. Labelled data
serves the decision and the tuning both: a metric over half of it would be too coarse for either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.data import Dataset, open_dataset
from exporter.judging.evaluate import EvalData, check_metric, choose_metric
from exporter.judging.judge import Judge, LabelJudge, OutputJudge
from exporter.judging.perplexity import PERPLEXITY
from exporter.judging.token_judge import TokenJudge
from exporter.options import ExportOptions
from exporter.probe_feeds import make_feeds, usable_shapes
from exporter.tracing.trace import Traced
from runtimes.artifact import TensorSpec
from runtimes.errors import UsageError
from runtimes.generation.cache_spec import LOGITS, CacheSpec
from runtimes.ort import OnnxRuntime, OrtOptions
from runtimes.protocol import Session
from runtimes.serving.subject import Subject

Feeds = Mapping[str, NDArray[np.generic]]

# A quarter of the samples is held out, at most so many: enough for a mean cosine to 0.001, and quick.
HELD_OUT_SHARE, HELD_OUT_MOST = 4, 128
BATCH = 8
# Random ids below this are ordinary tokens in every vocabulary met; see _count_vocabulary for a smaller one.
USUAL_VOCABULARY = 20_000
# Random batches of each shape, half to judge by and half to tune by. Each token of a decoder is a sample, and a row of
# logits as wide as the vocabulary.
_RANDOM, _RANDOM_OF_DECODER = 8, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """``calibration`` is None where there is none to do; ``judging`` and ``tuning`` are disjoint batches of feeds."""

    calibration: Dataset | None
    judging: tuple[Feeds, ...]
    tuning: tuple[Feeds, ...]
    vocabulary: int
    described: str
    metric: str

    @contextmanager
    def judges(self, traced: Traced, options: ExportOptions) -> Iterator[tuple[Judge, Judge]]:
        """Yield (judge for the decision, judge for tuning), both against the traced float model."""
        runtime = OnnxRuntime(OrtOptions(threads=options.threads))
        if traced.cache is not None:
            yield self._judge_tokens(traced.cache, partial(runtime.open, traced.artifact), traced, options)
            return
        with closing(runtime.open(traced.artifact)) as reference:
            if options.eval_data is None:
                yield OutputJudge(reference, self.judging), OutputJudge(reference, self.tuning)
                return
            subject = Subject(session=reference, task=traced.task, tokenizer=traced.tokenizer, labels=traced.labels)
            data = EvalData(
                spec=options.eval_data,
                label_column=options.label_column,
                columns=options.column,
                max_length=_find_length(traced, options),
            )
            judge = LabelJudge(subject, data, self.metric)
            yield judge, judge

    def _judge_tokens(
        self, cache: CacheSpec, open_reference: Callable[[], Session], traced: Traced, options: ExportOptions
    ) -> tuple[Judge, Judge]:
        """Return the judges of a decoder: texts need no labels, each token is that of those before it."""
        if options.eval_data is None:
            judge, tuner = (TokenJudge(open_reference, batches, cache) for batches in (self.judging, self.tuning))
        else:
            texts = _open_texts(options.eval_data, traced, options, limit=HELD_OUT_MOST)
            judge = tuner = TokenJudge(open_reference, tuple(texts.batches(batch_size=BATCH)), cache)
        judge.look_at_reference()
        return judge, tuner


def _open_texts(spec: str, traced: Traced, options: ExportOptions, *, limit: int) -> Dataset:
    return open_dataset(
        spec,
        traced.artifact.inputs,
        traced.tokenizer,
        columns=options.column,
        max_length=_find_length(traced, options),
        limit=limit,
    )


def _find_length(traced: Traced, options: ExportOptions) -> int:
    """Return how many tokens are kept of a text: no more than the model takes."""
    return min(options.max_length, traced.max_length or options.max_length)


def open_held_out(traced: Traced, options: ExportOptions, *, calibrated: int | None) -> HeldOut:
    """Open the data of an export and split it.

    Args:
        traced: The float model.
        options: What names the data.
        calibrated: Of how many samples the given statistics are; None where this export calibrates.

    Raises:
        DataError: it cannot be used, or is too little to hold some out.
        UsageError: the metric is unknown.
    """
    metric = _choose_metric(traced, options)
    inputs, vocabulary = traced.artifact.inputs, _count_vocabulary(traced)
    if options.calibration_data is None:
        each = _RANDOM if traced.cache is None else _RANDOM_OF_DECODER
        random = _random_batches(inputs, options, vocabulary, each=each)
        half = len(random) // 2
        described = options.eval_data or "random inputs (no calibration data was given)"
        return HeldOut(
            calibration=None,
            judging=random[:half],
            tuning=random[half:],
            vocabulary=vocabulary,
            described=described,
            metric=metric,
        )
    limit = HELD_OUT_MOST + (options.calibration_samples if calibrated is None else calibrated)
    dataset = _open_texts(options.calibration_data, traced, options, limit=limit)
    calibration, rest, origin = _divide(dataset, options) if calibrated is None else _pass_over(dataset, calibrated)
    tuning, judging = rest.split(max(1, len(rest) // 2))
    return HeldOut(
        calibration=calibration,
        judging=tuple(judging.batches(batch_size=BATCH)),
        tuning=tuple(tuning.batches(batch_size=BATCH)),
        vocabulary=vocabulary,
        described=options.eval_data or f"{len(judging)} {origin}",
        metric=metric,
    )


def _divide(dataset: Dataset, options: ExportOptions) -> tuple[Dataset, Dataset, str]:
    """Return (samples to calibrate with, no more than asked for; samples held out; what the latter are)."""
    calibration, rest = dataset.split(min(HELD_OUT_MOST, max(2, len(dataset) // HELD_OUT_SHARE)))
    asked = range(min(len(calibration), options.calibration_samples))
    return calibration.subset(asked), rest, "held-out samples"


def _pass_over(dataset: Dataset, calibrated: int) -> tuple[None, Dataset, str]:
    """Return samples to judge by where calibration took ``calibrated``: of this data, it would be the first ones."""
    # Where it comes again, a sample that calibration took is still one that it took.
    first: dict[bytes, int] = {}
    for place, index in enumerate(dataset.indices):
        first.setdefault(dataset.digests[index], place)
    rest = [place for place in first.values() if place >= calibrated]
    if len(rest) >= 2:
        return None, dataset.subset(rest), f"samples after the first {calibrated}"
    most = range(min(len(dataset), HELD_OUT_MOST))
    return None, dataset.subset(most), "samples that calibration may have seen"


def _choose_metric(traced: Traced, options: ExportOptions) -> str:
    if traced.cache is not None:
        if options.metric not in (None, PERPLEXITY):
            raise UsageError(
                f"a language model is not judged by {options.metric}", where="--metric", cure=f"use {PERPLEXITY}"
            )
        return PERPLEXITY
    if options.eval_data is None:
        return "cosine mean"
    metric = options.metric or choose_metric(traced.task)
    check_metric(metric)
    return metric


def _random_batches(
    specs: tuple[TensorSpec, ...], options: ExportOptions, vocabulary: int, *, each: int
) -> tuple[Feeds, ...]:
    """Return batches of random inputs, so many of each of the shapes that the export is timed at."""
    return tuple(
        make_feeds(specs, shape, vocabulary=vocabulary, seed=options.seed + number)
        for number in range(each)
        for shape in usable_shapes(specs, options.shapes)
    )


def _count_vocabulary(traced: Traced) -> int:
    """Return what random token ids stay below; two, which every table has rows for, where nothing tells.

    A tokenizer may know more tokens than the model, which optimum writes of a checkpoint that does not name its own.
    """
    logits = [spec.shape[-1] for spec in traced.artifact.outputs if traced.cache is not None and spec.name == LOGITS]
    known = [min(USUAL_VOCABULARY, width) for width in logits if isinstance(width, int)]
    return min([*known, count_tokens(traced.tokenizer)] if traced.tokenizer is not None else known, default=2)


def count_tokens(tokenizer: Path) -> int:
    """Return how many token ids a ``tokenizer.json`` knows, at most :data:`USUAL_VOCABULARY`."""
    from tokenizers import Tokenizer

    return min(USUAL_VOCABULARY, Tokenizer.from_file(str(tokenizer)).get_vocab_size())
