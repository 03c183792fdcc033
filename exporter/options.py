"""What a user may ask of an export, checked.

Plain data; must not import a runtime, torch or onnx.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import UsageError

PRECISIONS = ("auto", "fp32", "int8", "int8-dynamic", "int8-static", "weights-8", "weights-4")
METHODS = ("auto", "minmax", "percentile", "entropy", "mse")
TARGETS = ("onnxruntime",)
# (batch, sequence): one short text, one long one, and a batch.
DEFAULT_SHAPES = ((1, 16), (1, 128), (8, 128))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of one export.

    ``max_drop`` is the largest accepted loss: of the mean output cosine to float, or of ``metric`` with ``eval_data``
    (0.01 is one point). ``statistics`` is a file that ``stepdown calibrate`` wrote, used in place of collecting;
    ``calibration_data`` then only judges. ``shapes`` are (batch, sequence) pairs to time at. ``for_isa`` makes a file
    for another CPU, untimed. ``threads`` is ONNX Runtime's intra-op thread count; None takes the physical cores.
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
    method: str = "auto"
    max_drop: float = 0.01
    shapes: tuple[tuple[int, int], ...] = DEFAULT_SHAPES
    for_isa: str | None = None
    threads: int | None = None
    opset: int | None = None
    seed: int = 0
    force: bool = False


def check_options(options: ExportOptions) -> None:
    """Refuse options that cannot be carried out.

    Raises:
        UsageError: an unknown name or a value outside its range, with the accepted ones.
    """
    _check_name("--precision", options.precision, PRECISIONS)
    _check_name("--method", options.method, METHODS)
    for target in options.targets:
        _check_name("--target", target, TARGETS)
    if not 0 <= options.max_drop < 1:
        raise UsageError(f"a drop of {options.max_drop} makes no sense", where="--max-drop", cure="give 0 to 1, or 1%")
    if options.calibration_samples < 1 or options.max_length < 1:
        raise UsageError(
            "samples and lengths start at 1", where="--samples, --max-length", cure="give a positive number"
        )
    if options.precision == "int8-static" and options.calibration_data is None and options.statistics is None:
        raise UsageError(
            "static INT8 needs calibration data",
            where="--precision int8-static",
            cure="pass --calibration-data FILE or --statistics FILE",
        )


def _check_name(option: str, name: str, known: tuple[str, ...]) -> None:
    if name in known:
        return
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UsageError(f"{name!r} is not known", where=option, cure=f"{hint}choose one of {', '.join(known)}")
