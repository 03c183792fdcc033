"""Plans for the candidates of the TensorRT target: each built, and where a GPU is compared with its graph.

In: judged candidates and the graphs they were lowered to. Out: :class:`Plans`, with TensorRT's reason for what it
refused. Writes only below ``work``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from exporter.candidates.cast_session import CastSession
from exporter.candidates.target import Job, make_timing_plan
from exporter.candidates.timing import TimingPlan
from exporter.candidates.trial import Trial
from exporter.probe_feeds import usable_shapes
from exporter.tensorrt.candidates import Lowering, TrtSpec, TrtWorkshop
from exporter.tolerances import read_tolerance
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import StepdownError
from runtimes.parity import compare, require
from runtimes.protocol import Session
from runtimes.trt.inspector import describe_unpicked, find_unpicked
from runtimes.trt.options import BuildOptions, Expectation, RunOptions, TrtOptions
from runtimes.trt.profiles import fit_profiles, holds, is_dynamic, resolve_profiles
from runtimes.trt.runtime import TensorRt

# A plan that was built here a moment ago may bring code.
OWN = RunOptions(allow_host_code=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """Plans by candidate, and what is known of them.

    Attributes:
        built: The plans.
        refused: Why TensorRT refused the others.
        accepted: What it runs otherwise than asked, where it may.
        left_dense: Of plans that ran: nodes whose 2:4 weights were to be multiplied as such, and are not.
    """

    built: Mapping[TrtSpec, Artifact] = field(default_factory=dict)
    refused: Mapping[TrtSpec, StepdownError] = field(default_factory=dict)
    accepted: Mapping[TrtSpec, str] = field(default_factory=dict)
    left_dense: Mapping[TrtSpec, tuple[str, ...]] = field(default_factory=dict)


OpenGraph = Callable[[TrtSpec, Artifact], Session]


def build_plans(
    trials: Sequence[Trial[TrtSpec]],
    workshop: TrtWorkshop,
    job: Job,
    timing: TimingPlan,
    *,
    oracle: OpenGraph | None,
) -> Plans:
    """Build every candidate's plan; one that TensorRT refuses, or runs otherwise than asked, is out with the reason.

    Args:
        trials: Judged candidates, the plain float one among them.
        workshop: Remembers which nodes of each graph read INT8.
        job: What to build for.
        timing: What a plan is compared with its graph on.
        oracle: Opens the graph that a candidate was judged by; None where plans do not run here. Opening a plan looks
            at what TensorRT picked for each layer, and running it shows whether it answers like that graph.

    Raises:
        StepdownError: no candidate that may ship has a plan: why the first of them has none.
    """
    options = job.options
    if options.tensorrt.lower_only:
        return Plans()
    built: dict[TrtSpec, Artifact] = {}
    refused: dict[TrtSpec, StepdownError] = {}
    accepted: dict[TrtSpec, str] = {}
    left_dense: dict[TrtSpec, tuple[str, ...]] = {}
    planned = [trial for trial in trials if not trial.spec.provider]
    with job.progress.task("building plans", len(planned)) as task:
        for number, trial in enumerate(planned):
            asked = _list_expected(trial.spec, workshop.lowered.get(trial.spec.graph()))
            build = _choose_build(trial.spec, asked, job)
            runtime = TensorRt(TrtOptions(library=options.tensorrt.library, build=build, run=OWN))
            try:
                # Beside its graph, which a plan without weights takes them from.
                plan = runtime.build(trial.artifact.path, trial.artifact.path.with_name(f"{number}.plan"))
                if oracle is not None:
                    with closing(oracle(trial.spec, trial.artifact)) as graph, closing(runtime.open(plan)) as session:
                        _require_alike(graph, session, job.traced.artifact.inputs, timing)
                        layers = session.list_layers()
                        accepted[trial.spec] = describe_unpicked(layers, asked)
                        _, left_dense[trial.spec] = find_unpicked(layers, asked)
                built[trial.spec] = plan
            except StepdownError as error:
                refused[trial.spec] = error
            task.advance(1)
    # With a forced precision plain float is there to compare with, and does not ship.
    is_forced = options.precision not in ("auto", "fp32")
    if all(is_forced and spec.plain for spec in built):
        raise refused[min(refused, key=lambda spec: spec.plain is is_forced)]
    return Plans(built=built, refused=refused, accepted=accepted, left_dense=left_dense)


def choose_timing(job: Job) -> TimingPlan:
    """Return what is asked to be timed of what the profiles hold; where that is nothing, what they are tuned for.

    Raises:
        UsageError: the profiles do not fit the model.
    """
    inputs, asked = job.traced.artifact.inputs, make_timing_plan(job)
    if not is_dynamic(inputs):
        return asked
    profiles = fit_profiles(job.options.tensorrt.build.profiles, job.traced.max_length, inputs)
    ranges = resolve_profiles(profiles, inputs)

    def is_held(timing: TimingPlan) -> bool:
        shapes = [{name: np.shape(array) for name, array in feeds.items()} for _, feeds in timing.feed(inputs)]
        return all(any(holds(one, found) for one in ranges) for found in shapes)

    held = tuple(shape for shape in asked.shapes if is_held(replace(asked, shapes=(shape,), contexts=())))
    return replace(
        asked,
        shapes=held or usable_shapes(inputs, [profile.opt for profile in profiles]),
        contexts=tuple(past for past in asked.contexts if is_held(replace(asked, shapes=(), contexts=(past,)))),
    )


def _require_alike(graph: Session, plan: Session, inputs: Sequence[TensorSpec], timing: TimingPlan) -> None:
    """Raise ParityFailure where a plan answers otherwise than its graph to anything that is timed."""
    # A plan's cache may be narrower than the traced one; its graph comes to us as what takes any.
    plan = CastSession(plan)
    for _, feeds in timing.feed(inputs):
        require(compare(graph.run(feeds), plan.run(feeds), read_tolerance("graph-to-plan")))
        # As it will be timed: a plan that cannot be recorded is out with the reason.
        plan.prepare(feeds)()


def _list_expected(spec: TrtSpec, lowering: Lowering | None) -> Expectation:
    """Return which layers of a candidate must run in INT8, and sparse."""
    if lowering is None:
        return Expectation()
    return Expectation(int8=lowering.done.int8, sparse=lowering.sparse if spec.sparse else ())


def _choose_build(spec: TrtSpec, asked: Expectation, job: Job) -> BuildOptions:
    """Return the user's build options with what this candidate is; what may run otherwise is not in its record."""
    options = job.options.tensorrt
    expected = Expectation() if options.allow_unpicked else asked
    return replace(options.build, longest=job.traced.max_length, sparse=spec.sparse, expected=expected)
