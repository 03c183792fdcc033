"""The TensorRT target: lower, judge, build plans, time where a GPU is, choose.

In: a traced model, its statistics and options. Out: the chosen plan with the report on all candidates, and the graph it
was built from. Says how far it went: the graph's rules and numbers checked on ONNX Runtime (lowered), a plan (built),
the plan run on its GPU (ran). Writes only below ``work``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.machine.description import describe_machine
from exporter.candidates.cast_session import CastSession
from exporter.candidates.choice import Decision, decide, decide_untimed
from exporter.candidates.linear_inputs import open_inputs
from exporter.candidates.static_plans import StaticPlans
from exporter.candidates.target import Job, TargetResult, make_timing_plan
from exporter.candidates.timing import Timing, TimingPlan, time_trials
from exporter.candidates.trial import Trial
from exporter.candidates.trials import Findings, TrialBench, make_report, mix, try_all
from exporter.options import ExportOptions
from exporter.reporting.report import Tier
from exporter.tensorrt.candidates import (
    Lowering,
    Rest,
    TrtSpec,
    TrtWorkshop,
    find_worthwhile,
    has_few_levels,
    has_sparse_weights,
    offer_trt_candidates,
)
from exporter.tensorrt.graph import prepare_for_tensorrt
from exporter.tensorrt.int4_rounding import Int4Rounding
from exporter.tensorrt.ledger import Shipped, make_ledger
from exporter.tensorrt.plans import OWN, Plans, build_plans, choose_timing
from runtimes.artifact import Artifact
from runtimes.errors import UnsupportedModel
from runtimes.ort import OnnxRuntime, OrtOptions
from runtimes.ort_providers import available_providers
from runtimes.protocol import Session
from runtimes.trt.fit import describe_gpus
from runtimes.trt.options import TrtOptions
from runtimes.trt.record import PlanRecord, read_record
from runtimes.trt.runtime import TensorRt

TARGET = "tensorrt"
CUDA = "CUDAExecutionProvider"
# A forced type is the type of everything; auto and INT8 leave the rest to --rest.
_FORCED: Mapping[str, Rest] = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}


def export_tensorrt(job: Job) -> TargetResult:
    """Make the plan; see :func:`exporter.pipeline.export` for what it raises."""
    options, watch = job.options, job.watch
    # Profiles that do not fit the model are refused before any work.
    asked = choose_timing(job)
    plans = _plan(job)
    tier, untimed = _find_tier(options)
    with watch.time("lower and judge"):
        workshop = _open_workshop(job, plans)
        trials = _judge_all(job, workshop, _offer(job, workshop, tier))
    with watch.time("build"):
        oracle = partial(_open_graph, options, workshop) if tier == "ran" else None
        made = build_plans(trials, workshop, job, asked, oracle=oracle)
    if tier == "ran" and any(spec.plain for spec in made.refused):
        tier, untimed = "built", "nothing to compare with, for plain float has no plan"
    # A plan is what ships and what is weighed; a candidate without one cannot, and an untimed provider is none.
    kept = tuple(
        replace(trial, artifact=made.built.get(trial.spec, trial.artifact))
        for trial in trials
        if trial.spec not in made.refused and (tier == "ran" or not trial.spec.provider)
    )
    timing = _time(kept, job, asked) if tier == "ran" else None
    decision = _decide(kept, timing, options, untimed)
    chosen = next(trial for trial in kept if trial.name == decision.chosen)
    record = read_record(chosen.artifact.path) if chosen.artifact.kind == "plan" else None
    lowering = workshop.lowered.get(chosen.spec.graph())
    shipped = Shipped(
        chosen=chosen.spec,
        plans=made,
        asked=options.tensorrt.build.sparse,
        tier=tier,
        speeds=timing.speeds if timing is not None else {},
    )
    found = Findings(
        target=TARGET,
        made_for=_name_gpus(record, chosen.spec),
        tier=tier,
        findings=(
            job.traced.findings
            + _list_findings(plans, lowering, made, chosen.spec)
            + _list_unheeded(job, workshop, asked, untimed)
        ),
        ledger=make_ledger(workshop, shipped),
        seconds=dict(watch.seconds),
    )
    graph = workshop.build(chosen.spec)
    return TargetResult(
        artifact=chosen.artifact,
        shipped=_name_files(chosen.artifact, graph),
        report=make_report(kept, timing, decision, options, job.held_out, found),
        entry=_describe(chosen.spec, record, graph),
        versions={name: str(version) for name, version in describe_machine()["versions"].items()},
        steps=_list_steps(plans, chosen.name, record),
        calibration=plans.to_json() if plans else None,
    )


def _open_workshop(job: Job, plans: StaticPlans | None) -> TrtWorkshop:
    return TrtWorkshop(
        prepared=_locate_prepared(job),
        directory=job.work,
        make_plan=plans.make_plan if plans else None,
        magnitudes=job.statistics.magnitudes if job.statistics is not None else {},
        rounding=Int4Rounding(inputs=open_inputs(job, _locate_prepared(job))) if _takes_int4(job) else None,
    )


def _takes_int4(job: Job) -> bool:
    """Whether weights are rounded to 4 bits: where that is asked for, and where weights are most of what is read."""
    return job.options.precision == "weights-4" or (job.options.precision == "auto" and job.traced.cache is not None)


def _plan(job: Job) -> StaticPlans | None:
    prepared = _locate_prepared(job)
    prepared.parent.mkdir()
    prepare_for_tensorrt(job.traced.artifact.path, prepared, int4=_takes_int4(job))
    if job.statistics is None:
        return None
    return StaticPlans(
        graph=prepared, statistics=job.statistics, method=job.options.method, weight_bits=8, symmetric=True
    )


def _locate_prepared(job: Job) -> Path:
    return job.work / "prepared" / "model.onnx"


def _offer(job: Job, workshop: TrtWorkshop, tier: Tier) -> tuple[TrtSpec, ...]:
    options, asked = job.options, job.options.tensorrt
    worthwhile = find_worthwhile(workshop.prepared)
    if options.precision == "int8" and not worthwhile:
        raise UnsupportedModel(
            "no linear of the model is worth INT8 on a GPU: all are too small",
            where="--precision int8",
            cure="leave the precision to stepdown, or use --precision fp16",
        )
    return offer_trt_candidates(
        options.precision,
        _FORCED.get(options.precision, asked.rest),
        calibrated=workshop.make_plan is not None and bool(worthwhile) and not asked.build.refit,
        attention=asked.attention,
        sparse=asked.build.sparse and has_sparse_weights(workshop.prepared),
        int4=has_few_levels(workshop.prepared),
        methods=workshop.rounding.methods if workshop.rounding is not None else (),
        providers=[CUDA] if tier == "ran" and CUDA in available_providers() else (),
    )


def _judge_all(job: Job, workshop: TrtWorkshop, specs: Sequence[TrtSpec]) -> tuple[Trial[TrtSpec], ...]:
    """Judge every candidate by its graph on ONNX Runtime: the oracle of the integers, also where there is a GPU."""
    with job.held_out.judges(job.traced, job.options) as (judge, tuner):
        bench = TrialBench(
            workshop=workshop, judge=judge, tuner=tuner, open_built=partial(_open_graph, job.options, workshop)
        )
        trials = try_all(bench, specs, job.progress)
        return trials + mix(bench, trials, job.options, job.progress)


def _open_graph(options: ExportOptions, workshop: TrtWorkshop, spec: TrtSpec, graph: Artifact) -> Session:
    # ONNX Runtime's CPU has no BF16; the same graph with FP32 in its place has the same integers.
    judged = workshop.build(replace(spec, rest="fp32")) if spec.rest == "bf16" else graph
    return CastSession(OnnxRuntime(OrtOptions(threads=options.threads)).open(judged))


def _find_tier(options: ExportOptions) -> tuple[Tier, str]:
    """Return how far this export can go, and why no further."""
    if options.tensorrt.lower_only:
        return "lowered", "lowered only"
    runtime = TensorRt(TrtOptions(library=options.tensorrt.library, build=options.tensorrt.build))
    if runtime.why_unavailable() is not None:
        return "built", "no GPU here"
    reason = runtime.why_not_run_here()
    return ("ran", "") if reason is None else ("built", reason)


def _time(trials: Sequence[Trial[TrtSpec]], job: Job, plan: TimingPlan) -> Timing:
    options = job.options
    with job.watch.time("time"), job.progress.task("timing, interleaved", 2 * len(plan)) as task:
        return time_trials(trials, plan, partial(_open_plan, options), task.advance, max_drop=options.max_drop)


def _open_plan(options: ExportOptions, trial: Trial[TrtSpec]) -> Session:
    if trial.spec.provider:
        return OnnxRuntime(OrtOptions(threads=options.threads, providers=(trial.spec.provider,))).open(trial.artifact)
    return CastSession(TensorRt(TrtOptions(run=OWN)).open(trial.artifact))


def _decide(trials: Sequence[Trial[TrtSpec]], timing: Timing | None, options: ExportOptions, untimed: str) -> Decision:
    forced = options.precision not in ("auto", "fp32")
    if timing is None:
        return decide_untimed(trials, max_drop=options.max_drop, made_for=f"TensorRT: {untimed}", forced=forced)
    return decide(trials, timing, max_drop=options.max_drop, forced=forced)


def _name_gpus(record: PlanRecord | None, spec: TrtSpec) -> str:
    if record is not None:
        return " ".join(f"sm{sm}" for sm in record.sms)
    return f"GPUs of {spec.provider}" if spec.provider else "any GPU: no plan was built"


def _name_files(artifact: Artifact, graph: Artifact) -> Mapping[str, Path]:
    """``model.sm80_86.plan`` with its record, and the graph: what TensorRT on another machine builds from."""
    named = {"model.onnx" if path == graph.path else path.name: path for path in graph.files or (graph.path,)}
    if artifact.kind != "plan":
        return named
    plan, record = artifact.files
    name = f"model.sm{'_'.join(map(str, read_record(plan).sms))}.plan"
    return {name: plan, f"{name}.json": record, **named}


def _describe(spec: TrtSpec, record: PlanRecord | None, graph: Artifact) -> Mapping[str, Any]:
    if spec.provider:
        return {"provider": spec.provider, "requires": {"onnxruntime-gpu": ""}, "runs_on": "what the provider runs on"}
    if record is None:
        return {"graph_sha256": graph.sha256, "requires": {}, "runs_on": "nothing yet: build a plan from the graph"}
    return {
        "graph_sha256": graph.sha256,
        "requires": {record.library: f"{'>=' if record.version_compatible else '=='}{record.version}"},
        "runs_on": describe_gpus(record),
        "rebuild": "when the package, the graph or a setting in the plan's record changes",
    }


def _list_findings(
    plans: StaticPlans | None, lowering: Lowering | None, made: Plans, chosen: TrtSpec
) -> tuple[str, ...]:
    refused = tuple(f"TensorRT refuses {spec.name}: {error.what}" for spec, error in made.refused.items())
    accepted = tuple(f"TensorRT runs {spec.name} otherwise: {how}" for spec, how in made.accepted.items() if how)
    judged = ("judged with FP32 in the place of BF16, which ONNX Runtime's CPU lacks",) if chosen.rest == "bf16" else ()
    planned = (plans.list_findings() if plans else ()) + (lowering.list_findings() if lowering else ())
    return planned + refused + accepted + judged


def _list_unheeded(job: Job, workshop: TrtWorkshop, timing: TimingPlan, untimed: str) -> tuple[str, ...]:
    """Return a sentence for everything that was asked for and came to nothing."""
    asked, found = job.options.tensorrt.build, []
    if asked.sparse and not has_sparse_weights(workshop.prepared):
        found.append("--sparse-weights changes nothing: no weight is 2:4 in a shape that sparse tensor cores take")
    if asked.refit and workshop.make_plan is not None:
        found.append("INT8 was not tried: --refit takes other weights, and scales are a part of INT8 kernels")
    dropped = [name for name in make_timing_plan(job).names() if name not in timing.names()]
    if dropped and not untimed:
        held = ", ".join(timing.names())
        found.append(f"not timed at {', '.join(dropped)}, which no profile takes; timed at {held}")
    return tuple(found)


def _list_steps(plans: StaticPlans | None, candidate: str, record: PlanRecord | None) -> tuple[Mapping[str, Any], ...]:
    calibrated = ({"step": "calibrate", **plans.describe_statistics()},) if plans is not None else ()
    built = ({"step": "build", **record.recipe()},) if record is not None else ()
    return (*calibrated, {"step": "lower", "candidate": candidate}, *built)
