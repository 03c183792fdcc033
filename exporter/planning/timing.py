"""A model traced, lowered to INT8 and timed, all that a plan needs of its graph.

In: a source. Out: :class:`TimedModel`. Writes only below the folder it is given. Must not import torch at module level.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from exporter.onnxruntime.candidates import CandidateSpec, FloatGraphs, Workshop
from exporter.onnxruntime.fuse import fuse_for_cpu
from exporter.planning.yardstick import Yardstick
from exporter.probe_feeds import make_feeds
from exporter.source import Source
from exporter.tracing.trace import trace
from runtimes.isa import detect, saturates_u8s8
from runtimes.ort import OnnxRuntime, OrtOptions

# Random tokens below this are in every vocabulary that a language model has.
_VOCABULARY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedModel:
    """A model as it is: bytes of its INT8 file, and its time in float and in INT8 at ``shape``, in yardsticks."""

    shape: str
    int8_bytes: int
    float_time: float
    int8_time: float


def time_model(source: Source, yardstick: Yardstick, folder: Path) -> TimedModel:
    """Trace the model, make its dynamic INT8 form as an export would, and time both in turns.

    Raises:
        UnsupportedModel, ParityFailure: it cannot be traced.
    """
    (folder / "float").mkdir()
    traced = trace(source, folder / "float")
    isa = detect()
    fused = folder / "fused.onnx"
    fuse_for_cpu(traced.artifact.path, fused, merged=False, unsigned=saturates_u8s8(isa))
    graphs = FloatGraphs(traced=traced.artifact.path, fused=fused, merged=fused)
    shop = Workshop(graphs=graphs, directory=folder, isa=isa, make_plan=None)
    artifacts = {"float": traced.artifact, "int8": shop.build(CandidateSpec(arithmetic="int8-dynamic"))}
    feeds = make_feeds(traced.artifact.inputs, yardstick.shape, vocabulary=_VOCABULARY, seed=0)
    runtime = OnnxRuntime(OrtOptions(threads=yardstick.threads))
    with ExitStack() as stack:
        sessions = {name: stack.enter_context(closing(runtime.open(one))) for name, one in artifacts.items()}
        times = yardstick.time({name: session.prepare(feeds) for name, session in sessions.items()})
    batch, length = yardstick.shape
    return TimedModel(
        shape=f"{batch}x{length}",
        int8_bytes=artifacts["int8"].size_bytes(),
        float_time=times["float"],
        int8_time=times["int8"],
    )
