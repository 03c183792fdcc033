"""The TensorRT target: calibrate, lower, judge, build plans, time where a GPU is, choose.

In: a traced model and options. Out: the chosen plan with the report on all candidates, and the graph it was built from.
Says how far it went: the graph's rules and numbers checked on ONNX Runtime (lowered), a plan (built), the plan run on
its GPU (ran). Writes only below ``work``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.machine import describe_machine
from calibration.lower.tensorrt import Lowered
from calibration.statistics import CalibrationStatistics
from exporter.choice import Decision, decide, decide_untimed
from exporter.held_out import HeldOut, open_held_out
from exporter.options import ExportOptions
from exporter.probe_feeds import usable_shapes
from exporter.progress import Progress
from exporter.report import Tier
from exporter.static_plans import StaticPlans, collect_for_plans
from exporter.stopwatch import Stopwatch
from exporter.target import TargetResult
from exporter.tensorrt_candidates import Rest, TrtSpec, TrtWorkshop, offer_trt_candidates
from exporter.timing import Timing, TimingPlan, time_trials
from exporter.trace import Traced
from exporter.trial import Trial
from exporter.trials import Findings, TrialBench, make_report, mix, try_all
from runtimes.artifact import Artifact
from runtimes.errors import UnsupportedModel
from runtimes.ort import OnnxRuntime, OrtOptions
from runtimes.protocol import Session
from runtimes.trt.options import BuildOptions, Expectation, TrtOptions
from runtimes.trt.record import PlanRecord, read_record
from runtimes.trt.runtime import TensorRt

TARGET = "tensorrt"
_STATIC = ("auto", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plans:
    """Plans by candidate, and why TensorRT refused the others."""

    built: Mapping[TrtSpec, Artifact]
    refused: Mapping[TrtSpec, UnsupportedModel]


def export_tensorrt(
    traced: Traced,
    options: ExportOptions,
    work: Path,
    progress: Progress,
    watch: Stopwatch,
    *,
    statistics: CalibrationStatistics | None = None,
) -> TargetResult:
    """Make the plan; see :func:`exporter.pipeline.export` for what it raises.

    ``statistics`` of the traced model, or of another target of this export, take the place of collecting on the data.
    """
    held_out = open_held_out(traced, options, calibrated=statistics.samples if statistics is not None else None)
    with watch.time("calibrate"):
        statistics = _calibrate(statistics, traced, held_out, options, progress)
    plans = _plan(statistics, traced, options)
    workshop = TrtWorkshop(traced=traced.artifact.path, directory=work, make_plan=plans.make_plan if plans else None)
    with watch.time("lower and judge"), held_out.judges(traced, options) as (judge, tuner):
        bench = TrialBench(
            workshop=workshop,
            judge=judge,
            tuner=tuner,
            # The oracle of the integers, also where there is a GPU: what it says can be checked anywhere.
            open_built=lambda _, artifact: OnnxRuntime(OrtOptions(threads=options.threads)).open(artifact),
        )
        trials = try_all(bench, _offer(options, plans), progress)
        trials += mix(bench, trials, options, progress)
    tier = _find_tier(options)
    with watch.time("build"):
        made = _build_all(trials, workshop, traced, options, work, progress, runs=tier == "ran")
    # A plan is what ships and what is weighed; a candidate without one cannot.
    kept = tuple(
        replace(trial, artifact=made.built.get(trial.spec, trial.artifact))
        for trial in trials
        if trial.spec not in made.refused
    )
    timing = _time(kept, traced, held_out, options, progress, watch) if tier == "ran" else None
    decision = _decide(kept, timing, options)
    chosen = next(trial for trial in kept if trial.name == decision.chosen)
    graph = workshop.build(chosen.spec)
    record = read_record(chosen.artifact.path) if tier != "lowered" else None
    lowered = workshop.lowered.get(chosen.spec.graph())
    found = Findings(
        target=TARGET,
        made_for=_name_gpus(record),
        tier=tier,
        findings=traced.findings + _list_findings(plans, lowered, made),
        seconds=dict(watch.seconds),
    )
    report = make_report(kept, timing, decision, options, held_out, found)
    return TargetResult(
        artifact=chosen.artifact,
        shipped=_name_files(chosen.artifact, graph),
        report=report,
        entry=_describe(record, graph),
        versions={name: str(version) for name, version in describe_machine()["versions"].items()},
        steps=_list_steps(plans, chosen.name, record),
        calibration=plans.to_json() if plans else None,
        statistics=statistics,
    )


def _calibrate(
    statistics: CalibrationStatistics | None,
    traced: Traced,
    held_out: HeldOut,
    options: ExportOptions,
    progress: Progress,
) -> CalibrationStatistics | None:
    data = held_out.calibration
    if statistics is not None or data is None or options.precision not in _STATIC:
        return statistics
    with progress.task("calibrating", len(data)) as task:
        return collect_for_plans(traced.artifact.path, data, threads=options.threads, advance=task.advance)


def _plan(statistics: CalibrationStatistics | None, traced: Traced, options: ExportOptions) -> StaticPlans | None:
    if statistics is None or options.precision not in _STATIC:
        return None
    return StaticPlans(
        fused=traced.artifact.path, statistics=statistics, method=options.method, weight_bits=8, symmetric=True
    )


def _offer(options: ExportOptions, plans: StaticPlans | None) -> tuple[TrtSpec, ...]:
    return offer_trt_candidates(
        options.precision,
        _choose_rest(options),
        calibrated=plans is not None,
        attention=options.tensorrt.attention,
        sparse=options.tensorrt.build.sparse,
    )


def _choose_rest(options: ExportOptions) -> Rest:
    match options.precision:
        case "fp32":
            return "fp32"
        case "bf16":
            return "bf16"
        case "fp16":
            return "fp16"
        case _:
            return options.tensorrt.rest


def _build_all(
    trials: Sequence[Trial[TrtSpec]],
    workshop: TrtWorkshop,
    traced: Traced,
    options: ExportOptions,
    work: Path,
    progress: Progress,
    *,
    runs: bool,
) -> _Plans:
    """Build every candidate's plan; one that TensorRT refuses, or runs otherwise than asked, is out with the reason.

    Raises:
        UnsupportedModel: TensorRT refuses the plain float graph, or all others of a forced precision.
    """
    built: dict[TrtSpec, Artifact] = {}
    refused: dict[TrtSpec, UnsupportedModel] = {}
    if options.tensorrt.lower_only:
        return _Plans(built=built, refused=refused)
    with progress.task("building plans", len(trials)) as task:
        for number, trial in enumerate(trials):
            build = _choose_build(trial.spec, workshop.lowered.get(trial.spec.graph()), traced, options)
            runtime = TensorRt(TrtOptions(library=options.tensorrt.library, build=build, run=options.tensorrt.run))
            try:
                plan = runtime.build(trial.artifact.path, work / "plans" / f"{number}.plan")
                if runs:
                    # Opening looks at what TensorRT picked for each layer.
                    runtime.open(plan).close()
                built[trial.spec] = plan
            except UnsupportedModel as error:
                refused[trial.spec] = error
            task.advance(1)
    # Without plain float nothing can be compared; with it alone, a forced precision has nothing to choose from.
    if any(spec.plain for spec in refused) or (refused and len(built) == 1 and options.precision != "auto"):
        raise next(iter(refused.values()))
    return _Plans(built=built, refused=refused)


def _choose_build(spec: TrtSpec, lowered: Lowered | None, traced: Traced, options: ExportOptions) -> BuildOptions:
    """Return the user's build options with what this candidate is: which layers must run in INT8, and sparse."""
    int8 = lowered.int8_nodes if lowered is not None else ()
    return replace(
        options.tensorrt.build,
        longest=traced.max_length,
        sparse=spec.sparse,
        expected=Expectation(int8=int8, sparse=lowered.sparse_nodes if spec.sparse and lowered is not None else ()),
    )


def _find_tier(options: ExportOptions) -> Tier:
    if options.tensorrt.lower_only:
        return "lowered"
    return "ran" if TensorRt().why_unavailable() is None else "built"


def _time(
    trials: Sequence[Trial[TrtSpec]],
    traced: Traced,
    held_out: HeldOut,
    options: ExportOptions,
    progress: Progress,
    watch: Stopwatch,
) -> Timing:
    shapes = usable_shapes(traced.artifact.inputs, options.shapes)
    plan = TimingPlan(shapes=shapes, vocabulary=held_out.vocabulary, seed=options.seed)
    with watch.time("time"), progress.task("timing, interleaved", 2 * len(shapes)) as task:
        return time_trials(trials, plan, partial(_open_plan, options), task.advance, max_drop=options.max_drop)


def _open_plan(options: ExportOptions, trial: Trial[TrtSpec]) -> Session:
    return TensorRt(TrtOptions(run=options.tensorrt.run)).open(trial.artifact)


def _decide(trials: Sequence[Trial[TrtSpec]], timing: Timing | None, options: ExportOptions) -> Decision:
    forced = options.precision not in ("auto", "fp32")
    if timing is None:
        made_for = "TensorRT: no GPU here"
        return decide_untimed(trials, max_drop=options.max_drop, made_for=made_for, forced=forced)
    return decide(trials, timing, max_drop=options.max_drop, forced=forced)


def _name_gpus(record: PlanRecord | None) -> str:
    return " ".join(f"sm{sm}" for sm in record.sms) if record is not None else "any GPU: no plan was built"


def _name_files(artifact: Artifact, graph: Artifact) -> Mapping[str, Path]:
    """``model.sm80_86.plan`` with its record, and the graph: what TensorRT on another machine builds from."""
    named = {"model.onnx" if path == graph.path else path.name: path for path in graph.files}
    if artifact.kind != "plan":
        return named
    plan, record = artifact.files
    name = f"model.sm{'_'.join(map(str, read_record(plan).sms))}.plan"
    return {name: plan, f"{name}.json": record, **named}


def _describe(record: PlanRecord | None, graph: Artifact) -> Mapping[str, Any]:
    if record is None:
        return {"graph_sha256": graph.sha256, "requires": {}, "runs_on": "nothing yet: build a plan from the graph"}
    return {
        "graph_sha256": graph.sha256,
        "requires": {record.library: f"=={record.version}"},
        "runs_on": f"NVIDIA GPUs of compute capability {', '.join(f'{sm // 10}.{sm % 10}' for sm in record.sms)}",
        "rebuild": "when the package, the graph or a setting in the plan's record changes",
    }


def _list_findings(plans: StaticPlans | None, lowered: Lowered | None, made: _Plans) -> tuple[str, ...]:
    refused = tuple(f"TensorRT refuses {spec.name}: {error.what}" for spec, error in made.refused.items())
    return (plans.list_findings() if plans else ()) + (lowered.findings if lowered else ()) + refused


def _list_steps(plans: StaticPlans | None, candidate: str, record: PlanRecord | None) -> tuple[Mapping[str, Any], ...]:
    calibrated = ({"step": "calibrate", **plans.describe_statistics()},) if plans is not None else ()
    built = ({"step": "build", **record.recipe()},) if record is not None else ()
    return (*calibrated, {"step": "lower", "candidate": candidate}, *built)
