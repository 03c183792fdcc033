"""What subjects answer, so that the speed of two models is compared only where they answer alike.

In: subjects and feeds. Out: their outputs, a few values of them for the sample file, and an error where two differ.
Must not import a runtime.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.processes.worker_process import TIMEOUT_S
from bench.recordings.recording import Answer
from bench.subjects.process import Opened, SubjectProcess
from bench.subjects.subject import SubjectSpec
from runtimes.artifact import TensorSpec
from runtimes.errors import ParityFailure
from runtimes.parity import Tolerance, compare

Tensors = Mapping[str, NDArray[np.generic]]
# Given the inputs of each subject: by shape, an ``.npz`` file with what any of them takes.
MakeFeeds = Callable[[Sequence[Sequence[TensorSpec]]], Mapping[str, Path]]

# Enough that a wrong layer cannot hide, few enough to keep in a file: 256 values of each output and shape.
_KEPT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a subject told when opened, and its outputs by shape."""

    opened: Opened
    outputs: Mapping[str, Tensors]


def make_tolerance(min_cosine: float) -> Tolerance:
    """Return the tolerance of a comparison of speed: the direction of each output alone, and for -1 any."""
    return Tolerance(
        atol=math.inf,
        rtol=0.0,
        # The cosine of opposite directions may be rounded to less than -1.
        min_cosine=min_cosine if min_cosine > -1 else None,
        reason="two compressed forms of one model answer in nearly the same direction; a broken one does not",
    )


def collect_answers(
    specs: Sequence[SubjectSpec], make_feeds: MakeFeeds, *, timeout_s: float = TIMEOUT_S
) -> tuple[dict[str, Answers], Mapping[str, Path]]:
    """Open every subject and run it once at every shape.

    Returns:
        By label, what it answered; and the feeds, which are made once all inputs are known.

    Raises:
        SubjectFailed: a subject crashed or did not answer in time; other errors, and those of ``make_feeds``, pass.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        processes = [stack.enter_context(SubjectProcess(spec, timeout_s=timeout_s)) for spec in specs]
        opened = [process.open() for process in processes]
        feeds = make_feeds([one.inputs for one in opened])
        answers = {
            process.spec.label: Answers(opened=one, outputs=_ask(process, feeds, folder / "answer.npz"))
            for process, one in zip(processes, opened, strict=True)
        }
        return answers, feeds


def _ask(process: SubjectProcess, feeds: Mapping[str, Path], out: Path) -> dict[str, Tensors]:
    outputs: dict[str, Tensors] = {}
    for shape, path in feeds.items():
        process.prepare(path)
        process.answer(out)
        with np.load(out, allow_pickle=False) as arrays:
            outputs[shape] = {name: arrays[name] for name in arrays.files}
    return outputs


def require_alike(base: Mapping[str, Tensors], head: Mapping[str, Tensors], tolerance: Tolerance) -> None:
    """Compare answers shape by shape.

    Raises:
        ParityFailure: they differ by more than the tolerance.
    """
    for shape, expected in base.items():
        report = compare(expected, head[shape], tolerance)
        if report.verdict == "fail":
            raise ParityFailure(
                f"base and head are different models: {report.message}",
                where=shape,
                cure="compare forms of one model, or lower --min-cosine if they may differ by that much",
            )


def keep_some(outputs: Tensors) -> Answer:
    """Return up to 256 values of each output, evenly spaced, for the sample file."""
    return {name: tuple(_take_evenly(values)) for name, values in outputs.items() if values.dtype.kind in "fiub"}


def restore_kept(answer: Answer) -> Tensors:
    """Return kept values as arrays; what was not finite is NaN."""
    return {name: np.array([math.nan if v is None else v for v in values]) for name, values in answer.items()}


def _take_evenly(values: NDArray[np.generic]) -> list[float | None]:
    flat = values.reshape(-1)
    at = np.linspace(0, flat.size - 1, min(_KEPT, flat.size)).astype(np.int64)
    return [float(value) if math.isfinite(value) else None for value in flat[at].astype(np.float64)]
