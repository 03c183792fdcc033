"""Plans for the candidates of the TensorRT target: each built, and where a GPU is compared with its graph.

In: judged candidates and the graphs they were lowered to. Out: :class:`Plans`, with TensorRT's reason for what it
refused. Writes only below ``work``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from exporter.probe_feeds import make_feeds, usable_shapes
from exporter.target import Job
from exporter.tensorrt_candidates import Lowering, TrtSpec, TrtWorkshop
from exporter.tolerances import read_tolerance
from exporter.trial import Trial
from runtimes.artifact import Artifact
from runtimes.errors import ParityFailure, StepdownError, UnsupportedModel
from runtimes.parity import compare, require
from runtimes.protocol import Session
from runtimes.trt.options import BuildOptions, Expectation, TrtOptions
from runtimes.trt.profiles import fit_profiles, holds, is_dynamic, resolve_profile
from runtimes.trt.runtime import TensorRt


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """Plans by candidate, and why TensorRT refused the others."""

    built: Mapping[TrtSpec, Artifact]
    refused: Mapping[TrtSpec, StepdownError]


OpenGraph = Callable[[TrtSpec, Artifact], Session]


def build_plans(
    trials: Sequence[Trial[TrtSpec]],
    workshop: TrtWorkshop,
    job: Job,
    shapes: Sequence[tuple[int, int]],
    *,
    oracle: OpenGraph | None,
) -> Plans:
    """Build every candidate's plan; one that TensorRT refuses, or runs otherwise than asked, is out with the reason.

    Args:
        trials: Judged candidates, the plain float one among them.
        workshop: Remembers which nodes of each graph read INT8.
        job: What to build for.
        shapes: Where a plan is compared with its graph.
        oracle: Opens the graph that a candidate was judged by; None where plans do not run here. Opening a plan looks
            at what TensorRT picked for each layer, and running it shows whether it answers like that graph.

    Raises:
        UnsupportedModel: TensorRT refuses the plain float graph, or all others of a forced precision.
        UsageError: the profiles do not fit the model.
    """
    options = job.options
    built: dict[TrtSpec, Artifact] = {}
    refused: dict[TrtSpec, StepdownError] = {}
    if options.tensorrt.lower_only:
        return Plans(built=built, refused=refused)
    planned = [trial for trial in trials if not trial.spec.provider]
    with job.progress.task("building plans", len(planned)) as task:
        for number, trial in enumerate(planned):
            build = _choose_build(trial.spec, workshop.lowered.get(trial.spec.graph()), job)
            runtime = TensorRt(TrtOptions(library=options.tensorrt.library, build=build, run=options.tensorrt.run))
            try:
                plan = runtime.build(trial.artifact.path, job.work / "plans" / f"{number}.plan")
                if oracle is not None:
                    with closing(oracle(trial.spec, trial.artifact)) as graph, closing(runtime.open(plan)) as session:
                        _require_alike(graph, session, job, shapes)
                built[trial.spec] = plan
            except (UnsupportedModel, ParityFailure) as error:
                refused[trial.spec] = error
            task.advance(1)
    # Without plain float nothing can be compared; with it alone, a forced precision has nothing to choose from.
    if any(spec.plain for spec in refused) or (refused and len(built) == 1 and options.precision != "auto"):
        raise next(iter(refused.values()))
    return Plans(built=built, refused=refused)


def choose_shapes(job: Job) -> tuple[tuple[int, int], ...]:
    """Return the (batch, sequence) shapes asked for that the profiles hold; where none is, what they are tuned for."""
    inputs = job.traced.artifact.inputs
    shapes = usable_shapes(inputs, job.options.shapes)
    if not is_dynamic(inputs):
        return shapes
    profiles = fit_profiles(job.options.tensorrt.build.profiles, job.traced.max_length)
    ranges = [resolve_profile(profile, inputs) for profile in profiles]
    held = tuple(shape for shape in shapes if any(holds(one, _list_shapes(job, shape)) for one in ranges))
    return held or usable_shapes(inputs, [profile.opt for profile in profiles])


def _list_shapes(job: Job, shape: tuple[int, int]) -> Mapping[str, tuple[int, ...]]:
    return {name: array.shape for name, array in _make_feeds(job, shape).items()}


def _make_feeds(job: Job, shape: tuple[int, int]) -> Mapping[str, NDArray[np.generic]]:
    inputs = job.traced.artifact.inputs
    return make_feeds(inputs, shape, vocabulary=job.held_out.vocabulary, seed=job.options.seed)


def _require_alike(graph: Session, plan: Session, job: Job, shapes: Sequence[tuple[int, int]]) -> None:
    """Raise ParityFailure where a plan answers otherwise than its graph at any of the shapes."""
    for shape in shapes:
        feeds = _make_feeds(job, shape)
        require(compare(graph.run(feeds), plan.run(feeds), read_tolerance("graph-to-plan")))


def _choose_build(spec: TrtSpec, lowering: Lowering | None, job: Job) -> BuildOptions:
    """Return the user's build options with what this candidate is: which layers must run in INT8, and sparse."""
    int8 = lowering.done.int8 if lowering is not None else ()
    sparse = lowering.sparse if lowering is not None and spec.sparse else ()
    return replace(
        job.options.tensorrt.build,
        longest=job.traced.max_length,
        sparse=spec.sparse,
        expected=Expectation(int8=int8, sparse=sparse),
    )
