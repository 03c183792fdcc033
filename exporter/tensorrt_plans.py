"""Plans for the candidates of the TensorRT target: each built, or out with TensorRT's reason.

In: judged candidates and the graphs they were lowered to. Out: :class:`Plans`. Writes only below ``work``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from exporter.target import Job
from exporter.tensorrt_candidates import Lowering, TrtSpec, TrtWorkshop
from exporter.trial import Trial
from runtimes.artifact import Artifact
from runtimes.errors import UnsupportedModel
from runtimes.trt.options import BuildOptions, Expectation, TrtOptions
from runtimes.trt.runtime import TensorRt


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """Plans by candidate, and why TensorRT refused the others."""

    built: Mapping[TrtSpec, Artifact]
    refused: Mapping[TrtSpec, UnsupportedModel]


def build_plans(trials: Sequence[Trial[TrtSpec]], workshop: TrtWorkshop, job: Job, *, runs: bool) -> Plans:
    """Build every candidate's plan; one that TensorRT refuses, or runs otherwise than asked, is out with the reason.

    Args:
        trials: Judged candidates, the plain float one among them.
        workshop: Remembers which nodes of each graph read INT8.
        job: What to build for.
        runs: Whether plans run here; opening one looks at what TensorRT picked for each layer.

    Raises:
        UnsupportedModel: TensorRT refuses the plain float graph, or all others of a forced precision.
    """
    options = job.options
    built: dict[TrtSpec, Artifact] = {}
    refused: dict[TrtSpec, UnsupportedModel] = {}
    if options.tensorrt.lower_only:
        return Plans(built=built, refused=refused)
    planned = [trial for trial in trials if not trial.spec.provider]
    with job.progress.task("building plans", len(planned)) as task:
        for number, trial in enumerate(planned):
            build = _choose_build(trial.spec, workshop.lowered.get(trial.spec.graph()), job)
            runtime = TensorRt(TrtOptions(library=options.tensorrt.library, build=build, run=options.tensorrt.run))
            try:
                plan = runtime.build(trial.artifact.path, job.work / "plans" / f"{number}.plan")
                if runs:
                    runtime.open(plan).close()
                built[trial.spec] = plan
            except UnsupportedModel as error:
                refused[trial.spec] = error
            task.advance(1)
    # Without plain float nothing can be compared; with it alone, a forced precision has nothing to choose from.
    if any(spec.plain for spec in refused) or (refused and len(built) == 1 and options.precision != "auto"):
        raise next(iter(refused.values()))
    return Plans(built=built, refused=refused)


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
