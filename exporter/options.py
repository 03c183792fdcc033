"""What a user may ask of an export, checked.

Plain data; must not import a runtime, torch or onnx.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runtimes.errors import UsageError
from runtimes.trt.library import LibraryName
from runtimes.trt.options import BuildOptions

PRECISIONS = (
    "auto",
    "fp32",
    "fp16",
    "bf16",
    "int8",
    "int8-dynamic",
    "int8-static",
    "weights-8",
    "weights-4",
    "weights-2",
)
# What a decoder may keep the tokens before in.
CACHE_PRECISIONS = ("fp32", "int8")
# What each target has.
PRECISIONS_OF = {
    "onnxruntime": ("auto", "fp32", "int8", "int8-dynamic", "int8-static", "weights-8", "weights-4", "weights-2"),
    "tensorrt": ("auto", "fp32", "fp16", "bf16", "int8", "weights-4"),
}
# What each target needs statistics for, where there is data: INT8 for its scales, FP16 to know what overflows.
CALIBRATED_PRECISIONS = {
    "onnxruntime": ("auto", "int8", "int8-static"),
    "tensorrt": ("auto", "fp16", "int8", "weights-4"),
}
METHODS = ("auto", "minmax", "percentile", "entropy", "mse")
TARGETS = ("onnxruntime", "tensorrt")
RESTS = ("fp16", "fp32", "bf16")
# (batch, sequence): one short text, one long one, and a batch.
DEFAULT_SHAPES = ((1, 16), (1, 128), (8, 128))


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtOptions:
    """What is asked of the TensorRT target alone.

    Attributes:
        library: The package that builds; None takes the first that works here.
        rest: The type of everything that is not INT8.
        attention: Whether the products of attention are INT8 too.
        lower_only: Whether to stop at the graph, where no TensorRT is installed.
        build: How plans are built.
        allow_unpicked: Whether TensorRT may run layers otherwise than asked: wider than INT8, or dense.
    """

    library: LibraryName | None = None
    rest: Literal["fp16", "fp32", "bf16"] = "fp16"
    attention: bool = False
    lower_only: bool = False
    build: BuildOptions = field(default_factory=BuildOptions)
    allow_unpicked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of one export.

    ``max_drop`` is the largest accepted loss: of the mean output cosine to float, or of ``metric`` with ``eval_data``
    (0.01 is one point). ``statistics`` is a file that ``stepdown calibrate`` wrote, used in place of collecting;
    ``calibration_data`` then only judges. ``shapes`` are (batch, sequence) pairs to time at. ``for_isa`` makes a file
    for another CPU, untimed. ``threads`` is ONNX Runtime's intra-op thread count; None takes the physical cores.
    ``cache_precision`` is what a decoder keeps keys and values in: every candidate but plain float has it.
    """

    model: str
    output: Path
    targets: tuple[str, ...] = ("onnxruntime",)
    task: str | None = None
    calibration_data: str | None = None
    statistics: str | None = None
    column: tuple[str, ...] = ()
    calibration_samples: int = 256
    max_length: int = 128
    eval_data: str | None = None
    label_column: str = "label"
    metric: str | None = None
    precision: str = "auto"
    cache_precision: str = "fp32"
    method: str = "auto"
    max_drop: float = 0.01
    shapes: tuple[tuple[int, int], ...] = DEFAULT_SHAPES
    for_isa: str | None = None
    threads: int | None = None
    opset: int | None = None
    seed: int = 0
    force: bool = False
    tensorrt: TensorRtOptions = field(default_factory=TensorRtOptions)


def check_options(options: ExportOptions) -> None:
    """Refuse options that cannot be carried out.

    Raises:
        UsageError: an unknown name or a value outside its range, with the accepted ones.
    """
    _check_name("--precision", options.precision, PRECISIONS)
    _check_name("--method", options.method, METHODS)
    _check_cache(options)
    for target in options.targets:
        _check_name("--target", target, TARGETS)
        if options.precision not in PRECISIONS_OF[target]:
            raise UsageError(
                f"{target} has no precision {options.precision}",
                where="--precision",
                cure=f"choose one of {', '.join(PRECISIONS_OF[target])}, or export each target by itself",
            )
    if options.tensorrt != TensorRtOptions() and "tensorrt" not in options.targets:
        raise UsageError("a TensorRT option without the target", where="--target", cure="add --target tensorrt")
    if options.precision == "int8" and options.tensorrt.build.refit:
        raise UsageError(
            "an INT8 plan cannot take other weights: scales are a part of its kernels",
            where="--refit",
            cure="leave it out, or use --precision fp16",
        )
    if not 0 <= options.max_drop < 1:
        raise UsageError(f"a drop of {options.max_drop} makes no sense", where="--max-drop", cure="give 0 to 1, or 1%")
    if options.calibration_samples < 1 or options.max_length < 1:
        raise UsageError(
            "samples and lengths start at 1", where="--samples, --max-length", cure="give a positive number"
        )
    needs_data = options.precision == "int8-static" or (options.precision == "int8" and "tensorrt" in options.targets)
    if needs_data and options.calibration_data is None and options.statistics is None:
        raise UsageError(
            "static INT8 needs calibration data",
            where=f"--precision {options.precision}",
            cure="pass --calibration-data FILE or --statistics FILE",
        )


def _check_cache(options: ExportOptions) -> None:
    where = f"--cache-precision {options.cache_precision}"
    if options.cache_precision == "fp16":
        raise UsageError(
            "ONNX Runtime has no kernel on CPUs that keeps a cache in float16: it widens all of it for every token",
            where=where,
            cure="use int8, which takes half of that; for TensorRT leave it out: the cache is as wide as --rest",
        )
    _check_name("--cache-precision", options.cache_precision, CACHE_PRECISIONS)
    if options.cache_precision == "fp32":
        return
    if "tensorrt" in options.targets:
        raise UsageError(
            "a plan of TensorRT keeps its cache in the type of the rest",
            where=where,
            cure="leave it out, or export each target by itself",
        )
    if options.calibration_data is None or options.statistics is not None:
        raise UsageError(
            "how large keys and values get is measured on calibration data, and is in no file of statistics",
            where=where,
            cure="pass --calibration-data FILE, and no --statistics",
        )


def _check_name(option: str, name: str, known: tuple[str, ...]) -> None:
    if name in known:
        return
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UsageError(f"{name!r} is not known", where=option, cure=f"{hint}choose one of {', '.join(known)}")
