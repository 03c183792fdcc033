"""What every target does with its candidates: build and judge all, mend the ones that miss the budget, report.

In: a target's workshop, judges and how to open what it built. Out: trials, and the report on them.
Must not import torch or onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Generic

from bench.machine.description import describe_machine
from bench.recordings.ledger import LedgerRow
from calibration.memory import give_back
from exporter.candidates.choice import Decision
from exporter.candidates.sensitivity import group_linears, mend
from exporter.candidates.timing import Timing
from exporter.candidates.trial import C, Candidate, Trial, Workshop
from exporter.judging.held_out import HeldOut
from exporter.judging.judge import Judge
from exporter.options import ExportOptions
from exporter.progress import Progress
from exporter.reporting.report import CandidateRow, Report, Tier
from runtimes.artifact import Artifact
from runtimes.protocol import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialBench(Generic[C]):
    """What judging and building share within one export. ``open_built`` opens what the workshop built.

    ``reference`` is the candidate, if there is one, whose own answers the judges compare with.
    """

    workshop: Workshop[C]
    judge: Judge
    tuner: Judge
    open_built: Callable[[C, Artifact], Session]
    reference: C | None = None

    def try_out(self, spec: C, *, tuning: bool) -> Trial[C]:
        """Build a candidate and judge it, on the tuning samples or for the decision."""
        artifact = self.workshop.build(spec)
        give_back(artifact.size_bytes())
        judge = self.tuner if tuning else self.judge
        if spec == self.reference:
            return Trial(spec=spec, artifact=artifact, judgement=judge.judge_reference())
        with closing(self.open_built(spec, artifact)) as session:
            return Trial(spec=spec, artifact=artifact, judgement=judge.judge(session))


def try_all(bench: TrialBench[C], specs: Sequence[C], progress: Progress) -> tuple[Trial[C], ...]:
    """Build and judge every candidate for the decision."""
    trials = []
    with progress.task("building and judging candidates", len(specs)) as task:
        for spec in specs:
            trials.append(bench.try_out(spec, tuning=False))
            task.advance(1)
    return tuple(trials)


def mix(
    bench: TrialBench[C], trials: Sequence[Trial[C]], options: ExportOptions, progress: Progress
) -> tuple[Trial[C], ...]:
    """Return a candidate with the layers that hurt in float, where no INT8 one keeps the budget, and its dense twin.

    What has a fault beyond its drop is not mended: which layer it comes from, the drop does not tell.
    """
    integer = [trial for trial in trials if trial.spec.arithmetic.startswith("int8")]
    if any(not trial.object_to_drop(options.max_drop) for trial in integer):
        return ()
    integer = [trial for trial in integer if not trial.judgement.fault]
    if not integer:
        return ()
    # The most accurate needs the fewest layers in float, and those cost more than what tells INT8 forms apart.
    spec = min(integer, key=lambda trial: trial.judgement.charged).spec
    groups = len(group_linears(bench.workshop, spec))
    with progress.task(f"finding the layers that hurt {spec.name}", groups) as task:
        mended = mend(bench.workshop, spec, bench.try_out, max_drop=options.max_drop, advance=task.advance)
    if mended is None:
        return ()
    twin = mended.spec.dense_twin
    return (mended,) if twin is None else (mended, bench.try_out(twin, tuning=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a target adds to its report: what it is, what it made files for, how far it went, what is odd, how long.

    ``ledger`` says what became of the zeros in weights, where there are any.
    """

    target: str
    made_for: str
    tier: Tier
    findings: tuple[str, ...]
    ledger: tuple[LedgerRow, ...] = ()
    seconds: Mapping[str, float]


def make_report(
    trials: Sequence[Trial[Candidate]],
    timing: Timing | None,
    decision: Decision,
    options: ExportOptions,
    held_out: HeldOut,
    found: Findings,
) -> Report:
    """Return one row a candidate, and what holds for all."""
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
        target=found.target,
        isa=found.made_for,
        timed=bool(speeds),
        judged_on=held_out.described,
        metric=held_out.metric,
        max_drop=options.max_drop,
        rows=rows,
        verdict=decision.verdict,
        tier=found.tier,
        machine=describe_machine(options.threads),
        findings=found.findings,
        ledger=found.ledger,
        seconds=found.seconds,
    )
