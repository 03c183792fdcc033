"""The ONNX Runtime target: fuse, calibrate, build candidates, judge, time, choose.

In: a traced model and options. Out: the chosen artifact with the report on all candidates. Writes only below ``work``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.machine import describe_machine
from calibration.statistics import CalibrationStatistics
from exporter.candidates import CandidateSpec, FloatGraphs, Workshop, offer_candidates
from exporter.choice import Decision, decide, decide_untimed
from exporter.exactness import is_exact_anywhere
from exporter.fuse import fuse_for_cpu, require_equal
from exporter.held_out import HeldOut, open_held_out
from exporter.judge import Judge
from exporter.options import ExportOptions
from exporter.probe_feeds import make_feeds, usable_shapes
from exporter.progress import Progress
from exporter.report import CandidateRow, Report
from exporter.sensitivity import group_linears, mend
from exporter.static_plans import StaticPlans, collect_for_plans, require_statistics_of
from exporter.stopwatch import Stopwatch
from exporter.timing import Timing, TimingPlan, time_trials
from exporter.trace import Traced
from exporter.trial import Trial
from runtimes.artifact import Artifact
from runtimes.isa import Isa, detect, named, saturates_u8s8
from runtimes.ort import CPU, OnnxRuntime, OrtOptions, available_providers

TARGET = "onnxruntime"
# Tried: 1.24.4 to 1.31.1 give the same answers; 1.23.2 has no QuantizeLinear of opset 23 on the CPU.
OLDEST_RUNTIME = "1.24"

# Tokens of the longest input the fused graphs are compared at, where the model takes more.
LONGEST_PROBE = 512

_ANY_CPU = "any CPU that ONNX Runtime runs on, with the same integers"
_SOME_CPUS = "CPUs that do not saturate uint8 x int8 products: AVX-512 VNNI, AVX-VNNI, AMX, Arm"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult:
    """What a target gives: the chosen file, the report, and what the manifest says of them.

    ``exact_on_any_cpu`` is False where the integer products of some CPUs would saturate; ``runs_on`` says it in words.
    """

    artifact: Artifact
    report: Report
    provider: str
    requires: Mapping[str, str]
    exact_on_any_cpu: bool
    runs_on: str
    versions: Mapping[str, str]
    steps: tuple[Mapping[str, Any], ...]
    calibration: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """What judging and building share within one export."""

    workshop: Workshop
    judge: Judge
    tuner: Judge
    threads: int | None

    def try_out(self, spec: CandidateSpec, *, tuning: bool) -> Trial:
        """Build a candidate and judge it, on the tuning samples or for the decision."""
        artifact = self.workshop.build(spec)
        runtime = OnnxRuntime(OrtOptions(threads=self.threads, providers=(spec.provider,)))
        with closing(runtime.open(artifact)) as session:
            judge = self.tuner if tuning else self.judge
            return Trial(spec=spec, artifact=artifact, judgement=judge.judge(session))


def export_onnxruntime(
    traced: Traced,
    options: ExportOptions,
    work: Path,
    progress: Progress,
    watch: Stopwatch,
    *,
    statistics: CalibrationStatistics | None = None,
) -> TargetResult:
    """Make the artifact for ONNX Runtime; see :func:`exporter.pipeline.export` for what it raises.

    ``statistics`` of the traced model take the place of collecting on the calibration data.
    """
    if statistics is not None:
        require_statistics_of(statistics, traced.artifact, where=f"--statistics {options.statistics}")
    isa = named(options.for_isa) if options.for_isa else detect()
    timed = options.for_isa is None
    progress.step("fusing the float graph")
    held_out = open_held_out(traced, options, calibrated=statistics.samples if statistics is not None else None)
    with watch.time("fuse"):
        graphs, fusions = _fuse(traced, work, unsigned=saturates_u8s8(isa))
        for path in (graphs.fused, graphs.merged):
            require_equal(traced.artifact, path, (held_out.judging[0], _longest(traced, held_out, options)))
    with watch.time("calibrate"):
        plans = _calibrate(statistics, held_out, graphs, options, isa, progress)
    workshop = Workshop(graphs=graphs, directory=work, isa=isa, make_plan=plans.make_plan if plans else None)
    with watch.time("build and judge"), held_out.judges(traced, options) as (judge, tuner):
        bench = _Bench(workshop=workshop, judge=judge, tuner=tuner, threads=options.threads)
        trials = _try_all(bench, _offer(options, plans, timed=timed), progress)
        trials += _mix(bench, trials, options, progress)
    timing = _time(trials, traced, held_out, options, progress, watch) if timed else None
    decision = _decide(trials, timing, options, isa)
    chosen = next(trial for trial in trials if trial.name == decision.chosen)
    exact_on_any_cpu = is_exact_anywhere(chosen.artifact.path)
    findings = traced.findings + (plans.list_findings() if plans else ())
    report = _report(trials, timing, decision, options, held_out, isa, watch, findings)
    return TargetResult(
        artifact=chosen.artifact,
        report=report,
        provider=chosen.spec.provider,
        requires={"onnxruntime": f">={OLDEST_RUNTIME}"},
        exact_on_any_cpu=exact_on_any_cpu,
        runs_on=_ANY_CPU if exact_on_any_cpu else _SOME_CPUS,
        versions={name: str(found) for name, found in describe_machine()["versions"].items()},
        steps=_list_steps(fusions, plans, chosen),
        calibration=plans.to_json() if plans else None,
    )


def _longest(traced: Traced, held_out: HeldOut, options: ExportOptions) -> Mapping[str, NDArray[np.generic]]:
    """Return random inputs as long as the model takes: a window or a position table shows only there."""
    length = min(traced.max_length or LONGEST_PROBE, LONGEST_PROBE)
    shape = usable_shapes(traced.artifact.inputs, ((2, length),))[0]
    return make_feeds(traced.artifact.inputs, shape, vocabulary=held_out.vocabulary, seed=options.seed)


def _list_steps(fusions: Mapping[str, int], plans: StaticPlans | None, chosen: Trial) -> tuple[Mapping[str, Any], ...]:
    calibrated = ({"step": "calibrate", **plans.describe_statistics()},) if plans is not None else ()
    return ({"step": "fuse", **fusions}, *calibrated, {"step": "lower", "candidate": chosen.name})


def _fuse(traced: Traced, work: Path, *, unsigned: bool) -> tuple[FloatGraphs, Mapping[str, int]]:
    graphs = FloatGraphs(
        traced=traced.artifact.path, fused=work / "fused" / "model.onnx", merged=work / "merged" / "model.onnx"
    )
    for path in (graphs.fused, graphs.merged):
        path.parent.mkdir()
    fuse_for_cpu(graphs.traced, graphs.fused, merged=False, unsigned=unsigned)
    return graphs, fuse_for_cpu(graphs.traced, graphs.merged, merged=True, unsigned=unsigned)


def _calibrate(
    statistics: CalibrationStatistics | None,
    held_out: HeldOut,
    graphs: FloatGraphs,
    options: ExportOptions,
    isa: Isa,
    progress: Progress,
) -> StaticPlans | None:
    if options.precision not in ("auto", "int8", "int8-static"):
        return None
    data = held_out.calibration
    if statistics is None:
        if data is None:
            return None
        with progress.task("calibrating", len(data)) as task:
            statistics = collect_for_plans(graphs, data, threads=options.threads, advance=task.advance)
    bits = 7 if saturates_u8s8(isa) else 8
    return StaticPlans(fused=graphs.fused, statistics=statistics, method=options.method, weight_bits=bits)


def _offer(options: ExportOptions, plans: StaticPlans | None, *, timed: bool) -> tuple[CandidateSpec, ...]:
    others = tuple(provider for provider in available_providers() if provider != CPU) if timed else ()
    return offer_candidates(options.precision, calibrated=plans is not None, providers=others, timed=timed)


def _try_all(bench: _Bench, specs: Sequence[CandidateSpec], progress: Progress) -> tuple[Trial, ...]:
    trials = []
    with progress.task("building and judging candidates", len(specs)) as task:
        for spec in specs:
            trials.append(bench.try_out(spec, tuning=False))
            task.advance(1)
    return tuple(trials)


def _time(
    trials: Sequence[Trial],
    traced: Traced,
    held_out: HeldOut,
    options: ExportOptions,
    progress: Progress,
    watch: Stopwatch,
) -> Timing:
    shapes = usable_shapes(traced.artifact.inputs, options.shapes)
    plan = TimingPlan(shapes=shapes, threads=options.threads, vocabulary=held_out.vocabulary, seed=options.seed)
    with watch.time("time"), progress.task("timing, interleaved", 2 * len(shapes)) as task:
        return time_trials(trials, plan, task.advance, max_drop=options.max_drop)


def _mix(bench: _Bench, trials: Sequence[Trial], options: ExportOptions, progress: Progress) -> tuple[Trial, ...]:
    """Return a candidate with the layers that hurt in float, where no INT8 one keeps the budget."""
    integer = [trial for trial in trials if trial.spec.arithmetic.startswith("int8")]
    if not integer or any(not trial.object_to_drop(options.max_drop) for trial in integer):
        return ()
    # The most accurate needs the fewest layers in float, and those cost more than what tells INT8 forms apart.
    spec = min(integer, key=lambda trial: trial.judgement.charged).spec
    groups = len(group_linears(bench.workshop, spec))
    with progress.task(f"finding the layers that hurt {spec.name}", groups) as task:
        mended = mend(bench.workshop, spec, bench.try_out, max_drop=options.max_drop, advance=task.advance)
    return (mended,) if mended is not None else ()


def _decide(trials: Sequence[Trial], timing: Timing | None, options: ExportOptions, isa: Isa) -> Decision:
    if timing is None:
        return decide_untimed(trials, max_drop=options.max_drop, isa=isa.level, precision=options.precision)
    return decide(trials, timing, max_drop=options.max_drop, forced=options.precision not in ("auto", "fp32"))


def _report(
    trials: Sequence[Trial],
    timing: Timing | None,
    decision: Decision,
    options: ExportOptions,
    held_out: HeldOut,
    isa: Isa,
    watch: Stopwatch,
    findings: tuple[str, ...],
) -> Report:
    speeds = timing.speeds if timing is not None else {}
    rows = tuple(
        CandidateRow(
            name=trial.name,
            size_bytes=trial.artifact.size_bytes(),
            speed=speeds.get(trial.name, {}),
            accuracy=trial.judgement.metrics,
            drop=trial.judgement.drop,
            chosen=trial.name == decision.chosen,
            reason=decision.reasons[trial.name],
        )
        for trial in trials
    )
    return Report(
        target=TARGET,
        isa=isa.level,
        timed=bool(speeds),
        judged_on=held_out.described,
        metric=held_out.metric,
        max_drop=options.max_drop,
        rows=rows,
        verdict=decision.verdict,
        machine=describe_machine(options.threads),
        findings=findings,
        seconds=dict(watch.seconds),
    )
