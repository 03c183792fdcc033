"""What a user may ask of TensorRT. Plain data; imports no TensorRT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtimes.trt.library import LibraryName
from runtimes.trt.profiles import Profile

# The generations TensorRT-RTX makes kernels for unless told otherwise: A100, RTX 30, RTX 40, RTX 50.
DEFAULT_SMS = (80, 86, 89, 120)
Hardware = Literal["this", "same-capability", "ampere-plus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Layers (ONNX node names) that must run as asked: in INT8 products, and with sparse weights."""

    int8: tuple[str, ...] = ()
    sparse: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How a plan is built. Precision is not here: it is in the graph.

    Attributes:
        profiles: Ranges of (batch, sequence); empty takes the default one where the graph is dynamic.
        longest: The longest sequence the model takes; None where nothing limits it.
        sms: GPU generations (``89``), TensorRT-RTX only; empty takes :data:`DEFAULT_SMS` there.
        sparse: Whether 2:4 weights may use sparse kernels. They are considered, not promised.
        version_compatible: Runs with later versions of TensorRT (enterprise).
        hardware: The GPUs an enterprise plan runs on: the one it is built on, those of its compute capability, or
            Ampere and later.
        refit: Weights can be replaced in the plan (not in INT8 plans: their scales are folded).
        strip: The plan holds no weights; on opening they are put back from the ONNX file it was built from.
        weight_streaming: Weights that do not fit the GPU's memory stay in the host's, and are streamed.
        workspace_bytes: Most scratch memory of a kernel; None leaves it to TensorRT.
        timing_cache: A file that keeps kernel timings between builds, which also makes them repeat (enterprise).
        optimization_level: 0 (fast build) to 5; None is TensorRT's default.
        expected: Layers whose kernels are checked when the plan is opened on a GPU.
    """

    profiles: tuple[Profile, ...] = ()
    longest: int | None = None
    sms: tuple[int, ...] = ()
    sparse: bool = False
    version_compatible: bool = False
    hardware: Hardware = "this"
    refit: bool = False
    strip: bool = False
    weight_streaming: bool = False
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    optimization_level: int | None = None
    expected: Expectation = Expectation()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a plan is run.

    Attributes:
        cuda_graph: Whether runs are recorded and replayed: by :meth:`prepare`, or by TensorRT-RTX itself.
        device_inputs: For :meth:`prepare`: inputs and outputs stay on the GPU, so that no copy is in the call.
        weights: An ONNX file whose weights replace those of a plan built with ``refit``. One built with ``strip`` alone
            takes the ``model.onnx`` beside it, which must be the one it was built from.
        allow_host_code: Whether a version-compatible plan may bring its own runtime, which is code for this computer's
            CPU. Only for plans of your own: the hash beside a plan does not say who made it.
        runtime_cache: A file that keeps the kernels TensorRT-RTX finishes on the device; None finishes them each time.
    """

    cuda_graph: bool = True
    device_inputs: bool = False
    weights: Path | None = None
    allow_host_code: bool = False
    runtime_cache: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtOptions:
    """Which package, how to build and how to run. ``library`` None takes the first that works."""

    library: LibraryName | None = None
    build: BuildOptions = BuildOptions()
    run: RunOptions = RunOptions()
