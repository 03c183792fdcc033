"""The ONNX Runtime target: fuse, calibrate, build candidates, judge, time, choose.

In: a traced model and options. Out: the chosen artifact with the report on all candidates. Writes only below ``work``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.machine.description import describe_machine
from calibration.memory import give_back
from exporter.candidates.cast_session import CastSession
from exporter.candidates.choice import Decision, decide, decide_untimed
from exporter.candidates.linear_inputs import open_inputs
from exporter.candidates.static_plans import StaticPlans
from exporter.candidates.target import Job, TargetResult, make_timing_plan
from exporter.candidates.timing import Timing, time_trials
from exporter.candidates.trial import Candidate, Trial
from exporter.candidates.trials import Findings, TrialBench, make_report, mix, try_all
from exporter.judging.held_out import Feeds, HeldOut
from exporter.onnxruntime.block_rounding import BITS, BlockRounding
from exporter.onnxruntime.block_trials import pass_over, shrink_tables
from exporter.onnxruntime.cache_range import CacheRange
from exporter.onnxruntime.candidates import CandidateSpec, FloatGraphs, Workshop, offer_candidates
from exporter.onnxruntime.exactness import is_exact_anywhere, rounds_where_it_can
from exporter.onnxruntime.fuse import FUSED_ATTENTION, MERGED, UNROUNDED, fuse_for_cpu, holds, require_equal
from exporter.onnxruntime.sparse import describe_kernels, list_findings, make_ledger, plan_sparse
from exporter.options import ExportOptions
from exporter.probe_feeds import make_feeds, make_step_feeds, usable_shapes
from exporter.sparsity.plans import SparsePlans
from exporter.tracing.trace import Traced
from runtimes.artifact import Artifact
from runtimes.generation.cache_spec import find_cache
from runtimes.isa import Isa, detect, named, saturates_u8s8
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.ort_providers import CPU, available_providers
from runtimes.protocol import Session

TARGET = "onnxruntime"
# Tried: 1.24.4 to 1.31.1 give the same answers; 1.23.2 has no QuantizeLinear of opset 23 on the CPU.
OLDEST_RUNTIME = "1.24"

# Tokens of the longest input the fused graphs are compared at, where the model takes more.
LONGEST_PROBE = 512

_ONE_BY_ONE = (
    "behind a cache, a batch of texts goes on by one token at a time; several at once take one text (ONNX Runtime's "
    "GroupQueryAttention)"
)

_ANY_CPU = "any CPU that ONNX Runtime runs on, with the same integers"
_BY_CPU = (
    "any CPU that ONNX Runtime runs on; activations are rounded to int8 from AVX2 and Arm's dot products on, and stay "
    "float below"
)
_WITH_KERNELS = "of these, x86-64 and AArch64 with Linux and the sparse kernels of stepdown"
_SOME_CPUS = "CPUs that do not saturate uint8 x int8 products: AVX-512 VNNI, AVX-VNNI, AMX, Arm"


def export_onnxruntime(job: Job) -> TargetResult:
    """Make the artifact for ONNX Runtime; see :func:`exporter.pipeline.export` for what it raises."""
    traced, options, held_out, watch = job.traced, job.options, job.held_out, job.watch
    isa = named(options.for_isa) if options.for_isa else detect()
    timed = options.for_isa is None
    job.progress.step("fusing the float graph")
    with watch.time("fuse"):
        graphs, fusions = _fuse(traced, job.work, unsigned=saturates_u8s8(isa))
        probes = _choose_probes(traced, held_out, options)
        require_equal(traced.artifact, dict.fromkeys((graphs.fused, graphs.merged)), probes)
        if graphs.unrounded is not None:
            require_equal(describe_onnx(graphs.unrounded.fused), [graphs.unrounded.merged], probes)
    give_back(traced.artifact.size_bytes())
    plans = _plan(job, graphs, isa)
    sparse, costs = plan_sparse(job, isa, timed=timed)
    workshop = Workshop(
        graphs=graphs,
        directory=job.work,
        isa=isa,
        make_plan=plans.make_plan if plans else None,
        choose_blocks=sparse.choose_blocks,
        blocks=BlockRounding(inputs=open_inputs(job, graphs.fused), isa=isa) if traced.cache is not None else None,
        cache_range=_open_range(job, graphs.fused),
    )
    specs = _offer(job, workshop, plans, sparse, timed=timed)
    with watch.time("build and judge"), held_out.judges(traced, options) as (judge, tuner):
        bench = TrialBench(
            workshop=workshop,
            judge=judge,
            tuner=tuner,
            open_built=partial(_open, options),
            reference=next(spec for spec in specs if spec.plain),
        )
        trials = _try(bench, specs, job)
    passed = pass_over(trials, max_drop=options.max_drop)
    able = [trial for trial in trials if trial.name not in passed]
    timing = _time(able, job) if timed else None
    decision = _decide(able, timing, options, isa)
    decision = replace(decision, reasons={**decision.reasons, **passed})
    chosen = next(trial for trial in trials if trial.name == decision.chosen)
    findings = traced.findings + (plans.list_findings() if plans else ()) + list_findings(sparse, costs, graphs)
    findings += (_ONE_BY_ONE,) if fusions.get(FUSED_ATTENTION) else ()
    found = Findings(
        target=TARGET,
        made_for=isa.level,
        tier="ran",
        findings=findings,
        ledger=make_ledger(sparse, graphs, trials, chosen.spec, job),
        seconds=dict(watch.seconds),
    )
    return TargetResult(
        artifact=chosen.artifact,
        shipped=_name_files(chosen.artifact),
        report=make_report(trials, timing, decision, options, held_out, found),
        entry=_describe(chosen),
        versions={name: str(version) for name, version in describe_machine()["versions"].items()},
        steps=_list_steps(fusions, plans, chosen),
        calibration=plans.to_json() if plans else None,
    )


def _describe(chosen: Trial[CandidateSpec]) -> Mapping[str, Any]:
    """Return what the manifest says of the model: what it needs, and where it runs."""
    path = chosen.artifact.path
    kernels, cache = describe_kernels(path), find_cache(chosen.artifact.inputs)
    requires = {"onnxruntime": f">={OLDEST_RUNTIME}"}
    exact_on_any_cpu = is_exact_anywhere(path)
    runs_on = _SOME_CPUS if not exact_on_any_cpu else _BY_CPU if rounds_where_it_can(path) else _ANY_CPU
    if kernels:
        requires["stepdown"] = f">={kernels['sparse_kernels']['version']}"
        runs_on = f"{runs_on}; {_WITH_KERNELS}"
    return {
        "provider": chosen.spec.provider,
        "requires": requires,
        "exact_on_any_cpu": exact_on_any_cpu,
        "runs_on": runs_on,
        **kernels,
        **({} if cache is None else {"cache": asdict(cache)}),
    }


def _try(
    bench: TrialBench[CandidateSpec], specs: Sequence[CandidateSpec], job: Job
) -> tuple[Trial[CandidateSpec], ...]:
    """Build and judge what is offered, and what that leads to."""
    max_drop = job.options.max_drop
    trials = try_all(bench, specs, job.progress)
    if job.traced.cache is None:
        return trials + mix(bench, trials, job.options, job.progress)
    trials += shrink_tables(bench, trials, max_drop=max_drop)
    # Blocks decode as fast as INT8, and to mend that takes a reading of the held-out texts for each of its layers.
    if any(trial.spec.arithmetic in BITS and not trial.object_to_drop(max_drop) for trial in trials):
        return trials
    return trials + mix(bench, trials, job.options, job.progress)


def _open(options: ExportOptions, spec: CandidateSpec, artifact: Artifact) -> Session:
    session = OnnxRuntime(OrtOptions(threads=options.threads, providers=(spec.provider,))).open(artifact)
    # All are fed what plain float is fed.
    return CastSession(session) if spec.narrow_cache else session


def _open_range(job: Job, graph: Path) -> CacheRange | None:
    """Return what measures keys and values, where a candidate's cache is to be narrower."""
    data, options = job.held_out.calibration, job.options
    if options.cache_precision == "fp32" or data is None:
        return None
    return CacheRange(graph=graph, data=data, longest=job.traced.max_length, threads=options.threads)


def _name_files(artifact: Artifact) -> Mapping[str, Path]:
    """The model ships as ``model.onnx``; weights beside it keep the name it refers to them by."""
    files = artifact.files or (artifact.path,)
    return {"model.onnx" if path == artifact.path else path.name: path for path in files}


def _choose_probes(traced: Traced, held_out: HeldOut, options: ExportOptions) -> tuple[Feeds, Feeds]:
    """Return what the fused graphs are compared on: real texts, and what is as long as the model takes.

    A window or a table of positions shows only there. A decoder's logits are as wide as its vocabulary: two texts, and
    one token far behind.
    """
    inputs, real = traced.artifact.inputs, held_out.judging[0]
    length = min(traced.max_length or LONGEST_PROBE, LONGEST_PROBE)
    if traced.cache is not None:
        few = {name: array[:2] for name, array in real.items()}
        return few, make_step_feeds(inputs, length - 1, vocabulary=held_out.vocabulary, seed=options.seed)
    shape = usable_shapes(inputs, ((2, length),))[0]
    return real, make_feeds(inputs, shape, vocabulary=held_out.vocabulary, seed=options.seed)


def _list_steps(
    fusions: Mapping[str, int], plans: StaticPlans | None, chosen: Trial[Candidate]
) -> tuple[Mapping[str, Any], ...]:
    calibrated = ({"step": "calibrate", **plans.describe_statistics()},) if plans is not None else ()
    return ({"step": "fuse", **fusions}, *calibrated, {"step": "lower", "candidate": chosen.name})


def _fuse(traced: Traced, work: Path, *, unsigned: bool) -> tuple[FloatGraphs, Mapping[str, int]]:
    source = traced.artifact.path
    graphs, fusions = _fuse_both(source, work, unsigned=unsigned, unrounded=False)
    if not holds(graphs.fused, "DequantizeLinear"):
        return graphs, fusions
    without, undone = _fuse_both(source, work / "unrounded", unsigned=unsigned, unrounded=True)
    return (replace(graphs, unrounded=without) if undone[UNROUNDED] else graphs), fusions


def _fuse_both(source: Path, work: Path, *, unsigned: bool, unrounded: bool) -> tuple[FloatGraphs, Mapping[str, int]]:
    """Write the fused form and the merged one, which is the same where nothing can be merged."""
    fused, merged = (work / name / "model.onnx" for name in ("fused", "merged"))
    for path in (fused, merged):
        path.parent.mkdir(parents=True)
    fusions = fuse_for_cpu(source, merged, merged=True, unsigned=unsigned, unrounded=unrounded)
    if not fusions[MERGED]:
        return FloatGraphs(traced=source, fused=merged, merged=merged), fusions
    fuse_for_cpu(source, fused, merged=False, unsigned=unsigned, unrounded=unrounded)
    return FloatGraphs(traced=source, fused=fused, merged=merged), fusions


def _plan(job: Job, graphs: FloatGraphs, isa: Isa) -> StaticPlans | None:
    if job.statistics is None:
        return None
    bits = 7 if saturates_u8s8(isa) else 8
    return StaticPlans(
        graph=graphs.fused, statistics=job.statistics, method=job.options.method, weight_bits=bits, symmetric=False
    )


def _offer(
    job: Job, workshop: Workshop, plans: StaticPlans | None, sparse: SparsePlans, *, timed: bool
) -> tuple[CandidateSpec, ...]:
    """Return the candidates; sparse ones only where layers that were timed are faster sparse."""
    # A narrower cache is tried on the CPU alone.
    elsewhere = timed and job.options.cache_precision == "fp32"
    others = tuple(provider for provider in available_providers() if provider != CPU) if elsewhere else ()
    specs = offer_candidates(
        job.options.precision,
        calibrated=plans is not None,
        providers=others,
        timed=timed,
        merges=workshop.graphs.in_float.merges,
        sparse=sparse.may_pay(workshop.graphs.in_float.fused),
        methods=workshop.blocks.methods if workshop.blocks is not None else (),
        narrow_cache=job.options.cache_precision == "int8",
    )
    if not any(spec.sparse for spec in specs):
        return specs
    job.progress.step("timing layers dense and sparse")
    with job.watch.time("time layers"):
        return tuple(
            spec for spec in specs if not spec.sparse or sparse.choose_blocks(workshop.find_source(spec), spec.values)
        )


def _time(trials: Sequence[Trial[CandidateSpec]], job: Job) -> Timing:
    options = job.options
    plan = make_timing_plan(job)
    with job.watch.time("time"), job.progress.task("timing, interleaved", 2 * len(plan)) as task:
        return time_trials(
            trials,
            plan,
            lambda trial: _open(options, trial.spec, trial.artifact),
            task.advance,
            max_drop=options.max_drop,
        )


def _decide(
    trials: Sequence[Trial[CandidateSpec]], timing: Timing | None, options: ExportOptions, isa: Isa
) -> Decision:
    forced = options.precision not in ("auto", "fp32") or options.cache_precision != "fp32"
    if timing is None:
        made_for = f"{isa.level}: made for another machine"
        return decide_untimed(trials, max_drop=options.max_drop, made_for=made_for, forced=forced)
    return decide(trials, timing, max_drop=options.max_drop, forced=forced)
