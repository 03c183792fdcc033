"""Where a subject's time goes: its runtime's own profiler, each operator with the module it came from.

In: a :class:`~bench.subjects.subject.SubjectSpec` and feeds. Out: :class:`~bench.recordings.recording.OpTime` for each
operator. The profiler costs time itself (a few per cent): shares are to be read, not sums.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.recordings.recording import OpTime
from bench.subjects.onnx_modules import name_modules
from bench.subjects.session import choose_runtime
from bench.subjects.subject import SubjectSpec
from runtimes.artifact import Artifact
from runtimes.errors import UnsupportedModel
from runtimes.ort import OnnxRuntime
from runtimes.protocol import Tensors
from runtimes.torch_profile import profile_call
from runtimes.torch_rt import TorchRuntime

# Before the runs that count: memory patterns are planned in the first run of a shape and used from the second.
_WARMUP_RUNS = 3
# They hold nodes that the profile lists by themselves.
_CONTAINERS = {"If", "Loop", "Scan"}


def profile_ops(spec: SubjectSpec, feeds: Tensors, runs: int, *, shape: str = "") -> tuple[OpTime, ...]:
    """Open the subject anew in this process, profile ``runs`` runs on ``feeds`` and return the mean of each operator.

    Args:
        spec: The subject.
        feeds: Input arrays by name.
        runs: Runs to average over, after a few that do not count.
        shape: What the results are to be called.

    Raises:
        UnsupportedModel: the runtime's profiler tells no operator of the model from another there.
        MissingDependency, CorruptArtifact, DataError: see :func:`bench.subjects.session.open_session`.
    """
    runtime = choose_runtime(spec)
    artifact = Artifact(path=spec.model, kind=spec.kind, sha256="", inputs=(), outputs=())
    if isinstance(runtime, OnnxRuntime):
        if spec.device != "cpu":
            raise UnsupportedModel(
                f"ONNX Runtime's profile times the launch of what runs on '{spec.device}', not the operators",
                where=spec.label,
                cure="profile it on the CPU, or with the vendor's own tool",
            )
        return _profile_onnx(runtime, artifact, feeds, runs, shape)
    if spec.runtime == "torch-compile" or not isinstance(runtime, TorchRuntime):
        raise UnsupportedModel(
            "compiled kernels do the work of several modules at once", where=spec.label, cure="profile torch, or ONNX"
        )
    modules = TorchRuntime(replace(runtime.options, keep_modules=True))
    with closing(modules.open(artifact)) as session:
        profiled = profile_call(session.prepare(feeds), runs, on_gpu=spec.device != "cpu")
    return tuple(
        OpTime(shape=shape, op=one.op, name=f"{one.module}/{one.op}", module=one.module, ns=one.ns) for one in profiled
    )


def _profile_onnx(
    runtime: OnnxRuntime, artifact: Artifact, feeds: Tensors, runs: int, shape: str
) -> tuple[OpTime, ...]:
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = replace(runtime.options, profile=Path(folder) / "profile", optimized=optimised)
        with closing(OnnxRuntime(options).open(artifact)) as session:
            call = session.prepare(feeds)
            for _ in range(_WARMUP_RUNS + runs):
                call()
            events = json.loads(session.stop_profiling().read_text(encoding="utf-8"))
        modules = name_modules(artifact.path, optimised)
    return tuple(read_events(events, modules, _WARMUP_RUNS, shape))


def read_events(
    events: Sequence[Mapping[str, Any]], modules: Mapping[str, str], warmup_runs: int, shape: str
) -> Iterator[OpTime]:
    """Sum what ONNX Runtime's profile says of each node, in the order they first ran.

    Args:
        events: The profile: Chrome trace events, ``ts`` and ``dur`` in microseconds.
        modules: Module paths by node name.
        warmup_runs: Runs at the start that do not count.
        shape: What the results are to be called.
    """
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    counted = starts[warmup_runs:]
    total_us: dict[tuple[str, str], int] = defaultdict(int)
    for event in sorted(events, key=lambda one: int(one.get("ts", 0))):
        if event["cat"] != "Node" or not event["name"].endswith("_kernel_time") or event["ts"] < counted[0]:
            continue
        total_us[event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]] += event["dur"]
    for (name, op), microseconds in total_us.items():
        if op not in _CONTAINERS:
            ns = round(microseconds * 1000 / len(counted))
            yield OpTime(shape=shape, op=op, name=name, module=modules.get(name, ""), ns=ns)
