"""A fixed product that other timings are told in: what a machine's mood does to them it does to both.

In: sessions or models of one linear. Out: times as multiples of the yardstick's. A time so told can be compared with
one that was taken on the same machine on another day; milliseconds cannot (a host's phases make them up to 1.6 times
as long for minutes).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.timing.compare import MIN_ROUNDS, compare
from bench.timing.measure import MeasurePlan, Subject, measure_interleaved
from calibration.linears import find_linears
from calibration.lower.onnxruntime.dynamic import lower_dynamic
from exporter.compressing.factor_costs import make_chain
from exporter.write_model import write_model
from runtimes.isa import detect, saturates_u8s8
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx

Shape = tuple[int, int]

# About the size of a linear of a small encoder, and never to change: recipes hold times told in it.
_WIDTH = 512
_NAME = "yardstick"
# A linear takes a millisecond, a model a hundred times that.
LAYER_PLAN = MeasurePlan(
    blocks=MIN_ROUNDS, block_seconds=0.02, min_runs=3, max_runs=200, discard=1, warmup_seconds=0.05, time_budget_s=4
)
MODEL_PLAN = MeasurePlan(
    blocks=MIN_ROUNDS, block_seconds=0.15, min_runs=2, max_runs=100, discard=1, warmup_seconds=0.3, time_budget_s=12
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """Times things in turns with the yardstick, at one (batch, sequence) ``shape``, in ONNX Runtime."""

    shape: Shape
    threads: int | None = None

    def time(self, subjects: Mapping[str, Subject], plan: MeasurePlan = MODEL_PLAN) -> dict[str, float]:
        """Return by name the time of each subject over that of the yardstick."""
        with tempfile.TemporaryDirectory(prefix="yardstick.") as folder, ExitStack() as stack:
            fixed = self._open_linear(stack, Path(folder), _WIDTH, _WIDTH, quantised=False)
            samples = measure_interleaved({_NAME: fixed, **subjects}, plan)
        return {name: 1.0 / compare(samples[_NAME], samples[name]).ratio for name in subjects}

    def time_linear(self, inputs: int, outputs: int, *, quantised: bool) -> float:
        """Return the time of one linear over that of the yardstick; ``quantised`` is dynamic INT8, else float32."""
        with tempfile.TemporaryDirectory(prefix="linear.") as folder, ExitStack() as stack:
            subject = self._open_linear(stack, Path(folder), inputs, outputs, quantised=quantised)
            return self.time({"linear": subject}, LAYER_PLAN)["linear"]

    def _open_linear(self, stack: ExitStack, folder: Path, inputs: int, outputs: int, *, quantised: bool) -> Subject:
        rng = np.random.default_rng(0)
        model = make_chain([rng.standard_normal((inputs, outputs)).astype(np.float32)])
        if quantised:
            lower_dynamic(model, find_linears(model), weight_bits=7 if saturates_u8s8(detect()) else 8)
        path = write_model(model, folder / "linear.onnx")
        session = stack.enter_context(closing(OnnxRuntime(OrtOptions(threads=self.threads)).open(describe_onnx(path))))
        return session.prepare({"x": rng.standard_normal((*self.shape, inputs)).astype(np.float32)})
