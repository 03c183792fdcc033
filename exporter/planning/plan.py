"""``stepdown plan``: a model and samples in; what its layers can bear, and a recipe with what it should give, out.

In: PlanOptions. Out: a Plan. Nothing is written. torch is imported by what is called, not here.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.planning.costs import CostModel, LayerTimer, count_bytes
from exporter.planning.result import Plan, PlannedStep
from exporter.planning.subject import PlanSubject, SubjectOptions, open_subject
from exporter.planning.timing import TimedModel, time_model
from exporter.planning.vocabulary import Shrinkage, shrink_vocabulary
from exporter.planning.yardstick import Yardstick
from exporter.progress import Progress
from runtimes.errors import BudgetMissed

if TYPE_CHECKING:
    from compression.context import Context
    from compression.planning.ladders import Zeros
    from compression.planning.probes import Sensitivity
    from compression.planning.proposal import Costs, Search, Trial
    from compression.planning.sensitivity import Ruler
    from compression.recipe import Step

# What training wins back of what the steps before it lose at once; rounding comes behind it. Of BERT-base on SQuAD 3
# points are lost at 70 % zeros in one shot and 10 at 80 %, and training brings back all of them (Kurtic et al., "The
# Optimal BERT Surgeon", arXiv:2203.07259). Other tasks, and a tenth of their epochs: three quarters are counted on.
RECOVERED = 0.75
SHAPE = (8, 128)
_TIMED = "onnxruntime"
_BATCH_SIZE = 32
# A layer is one of a hundred probes, compared by how far answers move: that takes fewer samples than a drop does.
_PROBED_SAMPLES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """Options of one plan.

    Attributes:
        subject: The model, and samples of what it is for.
        target: What will serve it: ``onnxruntime``, or ``tensorrt``, for which nothing is timed.
        max_drop: How much of the metric all steps together may cost, recovery included.
        threads: To compute with; None leaves it to torch and ONNX Runtime.
    """

    subject: SubjectOptions
    target: str = _TIMED
    max_drop: float = 0.01
    threads: int | None = None


def plan(options: PlanOptions, progress: Progress) -> Plan:
    """Measure what the model can bear, and propose a recipe.

    Raises:
        UsageError: an option is wrong.
        DataError: the data cannot be used, or there is too little of it.
        UnsupportedModel: the model cannot be read, has no encoder layers, predicts the next token, or its head is yet
            to be trained.
        BudgetMissed: not even rounding to 8 bits keeps to the budget.
    """
    from compression.planning.ladders import list_ladders
    from compression.planning.proposal import Search
    from compression.planning.sensitivity import Ruler
    from exporter.tracing.trainee import limit_threads

    limit_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="stepdown.") as scratch:
        progress.step("reading the model and the data")
        subject = open_subject(options.subject, Path(scratch))
        context = _make_context(subject, options)
        ruler = Ruler(subject.model, subject.judged, classifies=subject.classifies)
        found = _measure_layers(subject, progress)
        yardstick = _make_yardstick(subject, options)
        timed = _time(subject, yardstick, Path(scratch), progress)
        costs = _make_costs(subject, yardstick, timed, Path(scratch))
        words = shrink_vocabulary(subject)
        rounding = _measure_rounding(subject, ruler, options)
        budget = allow_at_once(options.max_drop, rounding) if subject.classifies else options.max_drop
        zeros: Zeros = "1x1" if options.target == _TIMED else "2:4"
        search = Search(
            subject.model,
            list_ladders(subject.model, found, context, zeros=zeros, budget=budget),
            context,
            ruler,
            partial(_predict, costs, words.rows_gone),
            partial(_round, subject),
        )
        with progress.task("trying steps together", None) as task:
            path = search.run(budget, task.advance)
        progress.step("predicting step by step")
        outcome = _Outcome(
            subject=subject,
            ruler=ruler,
            found=found,
            timed=timed,
            words=words,
            search=search,
            path=path,
        )
        return _propose(outcome, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """Everything that was measured."""

    subject: PlanSubject
    ruler: Ruler
    found: tuple[Sensitivity, ...]
    timed: TimedModel | None
    words: Shrinkage
    search: Search
    path: list[Trial]

    def expect(self, do: str, costs: Costs, drop: float | None = None) -> PlannedStep:
        """Describe a step."""
        speedup = None if costs.time is None or self.timed is None else self.timed.float_time / costs.time
        return PlannedStep(do=do, drop=drop, size_bytes=costs.size_bytes, speedup=speedup)


def _make_context(subject: PlanSubject, options: PlanOptions) -> Context:
    from compression.context import Context
    from exporter.compressing.factor_costs import measure_factor_gain

    return Context(
        seed=options.subject.seed,
        unlabelled=subject.seen,
        tokens=subject.tokens,
        # Each once: a plan tries a step again and again.
        factor_gain=cache(partial(measure_factor_gain, threads=options.threads)) if options.target == _TIMED else None,
    )


def _measure_layers(subject: PlanSubject, progress: Progress) -> tuple[Sensitivity, ...]:
    from compression.planning.probes import list_probes, measure_probes
    from compression.planning.sensitivity import Ruler
    from compression.samples import read_batches

    few = subject.judged.subset(range(min(_PROBED_SAMPLES, len(subject.judged))))
    ruler = Ruler(subject.model, few, classifies=subject.classifies)
    probes = list_probes(subject.model, list(read_batches(subject.seen, _BATCH_SIZE)))
    with progress.task("changing one layer at a time", len(probes)) as task:
        return measure_probes(subject.model, probes, ruler, task.advance)


def _make_yardstick(subject: PlanSubject, options: PlanOptions) -> Yardstick | None:
    """Return what times at 8x128, or at the longest that the model takes; None where nothing is to be timed."""
    if options.target != _TIMED:
        return None
    batch, length = SHAPE
    return Yardstick(shape=(batch, min(length, subject.max_length or length)), threads=options.threads)


def _time(subject: PlanSubject, yardstick: Yardstick | None, scratch: Path, progress: Progress) -> TimedModel | None:
    if yardstick is None:
        return None
    progress.step("timing the model in float and in INT8")
    return time_model(subject.source, yardstick, scratch)


def _make_costs(
    subject: PlanSubject, yardstick: Yardstick | None, timed: TimedModel | None, scratch: Path
) -> CostModel:
    from compression.planning.anatomy import read_anatomy

    whole = read_anatomy(subject.model)
    if timed is None or yardstick is None:
        return CostModel(whole, overhead_bytes=0, time=None, timer=None)
    return CostModel(
        whole,
        overhead_bytes=max(0, timed.int8_bytes - count_bytes(whole)),
        time=timed.int8_time,
        timer=LayerTimer(yardstick, scratch / "layers"),
    )


def _predict(costs: CostModel, rows_gone: int, model: Any) -> Costs:  # noqa: ANN401 - a torch module
    from compression.planning.anatomy import read_anatomy

    return costs.predict(read_anatomy(model), rows_gone=rows_gone)


def _round(subject: PlanSubject, model: Any) -> None:  # noqa: ANN401 - a torch module
    """Round every linear of a copy to INT8, as the export will."""
    from compression.models.inputs import run_batches
    from compression.models.layers import select_linears
    from compression.rounding.fake_quantise import fake_quantise

    batch = subject.seen.collate(range(min(_BATCH_SIZE, len(subject.seen))))
    linears = list(select_linears(model))
    fake_quantise(model, linears, run_batches(model, [batch], linears), bits=8)


def _measure_rounding(subject: PlanSubject, ruler: Ruler, options: PlanOptions) -> float:
    """Return what rounding alone costs."""
    rounded = copy.deepcopy(subject.model)
    _round(subject, rounded)
    drop = ruler.measure(rounded).drop
    if drop > options.max_drop:
        raise BudgetMissed(
            f"rounding to 8 bits alone costs {drop:.2%} of {ruler.metric}",
            where="--max-drop",
            cure="allow a larger --max-drop, measure on more --samples, or write a recipe with quantise-aware",
        )
    return drop


def allow_at_once(max_drop: float, rounding: float) -> float:
    """Return how much may be lost at once, where training wins back its share of all but ``rounding``."""
    return rounding + (max_drop - rounding) / (1 - RECOVERED)


def recover(at_once: float, rounding: float) -> float:
    """Return what stays lost of ``at_once``; nothing is won back where nothing but ``rounding`` was lost."""
    return rounding + (at_once - rounding) * (1 - RECOVERED) if at_once > rounding else at_once


def _propose(outcome: _Outcome, options: PlanOptions) -> Plan:
    from compression.prediction import Prediction
    from compression.recipe import Recipe

    chosen, subject, timed = outcome.path[-1], outcome.subject, outcome.timed
    listed = list(_list_steps(outcome))
    recovers = any(step.do == "distil" for step, _ in listed)
    at_once, rounding = chosen.change.drop, outcome.path[0].change.drop
    reference = 0.0 if timed is None else timed.float_time
    prediction = Prediction(
        drop=round(recover(at_once, rounding) if recovers else at_once, 5),
        drop_at_once=round(at_once, 5),
        drop_by_rounding=round(rounding, 5),
        metric=outcome.ruler.metric,
        score=round(outcome.ruler.score, 5),
        size_bytes=chosen.costs.size_bytes,
        speedup=0.0 if chosen.costs.time is None else round(reference / chosen.costs.time, 3),
        shape="8x128" if timed is None else timed.shape,
        reference_cost=round(reference, 5),
    )
    recipe = Recipe(
        name=f"plan-{Path(options.subject.model).name.partition('.')[0]}",
        seed=options.subject.seed,
        max_length=options.subject.max_length,
        steps=tuple(step for step, _ in listed),
        predicted=prediction,
    )
    return Plan(
        recipe=recipe,
        prediction=prediction,
        steps=tuple(expected for _, expected in listed),
        sensitivities=outcome.found,
        findings=tuple(_list_findings(outcome)),
        samples=len(subject.judged),
    )


def _list_steps(outcome: _Outcome) -> Iterator[tuple[Step, PlannedStep]]:
    from compression.planning.ladders import make_recovery, make_rounding, make_shrinking

    first, chosen = outcome.path[0], outcome.path[-1]
    if outcome.words.rows_gone:
        step = make_shrinking()
        yield step, outcome.expect(step.do, first.costs)
    for step, trial in outcome.search.walk(chosen.levels):
        yield step, outcome.expect(step.do, trial.costs, trial.change.drop)
    if outcome.subject.classifies and (chosen.levels or outcome.words.rows_gone):
        step = make_recovery(labelled=outcome.subject.judged.labels is not None)
        yield step, outcome.expect(step.do, chosen.costs)
    step = make_rounding("int8")
    yield step, outcome.expect(step.do, chosen.costs, chosen.change.drop)


def _list_findings(outcome: _Outcome) -> Iterator[str]:
    if outcome.timed is None:
        yield "Nothing was timed: what a GPU makes of it shows there. Sizes are those of the weights in INT8."
    if outcome.words.finding is not None:
        yield outcome.words.finding
    if not outcome.subject.classifies:
        yield "No training follows: a model without a classifier has no answers to learn again."
