"""Chooses how one activation, and the linears that read it, are quantised: by the measured error of their outputs.

In: the activation's statistics and the weights. Out: a :class:`Choice`. Every candidate is applied to the sampled rows;
what counts is the error of the layers' outputs on one half of the rows, after the bias correction fitted on the other.
Pure functions; numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.bias import find_bias_delta
from calibration.histogram import Histogram
from calibration.quantise import FloatArray, fake_quantise, quantise_weight
from calibration.ranges import PERCENTILES, Range, find_entropy, find_mse, find_percentile
from calibration.smooth import ALPHAS, find_smoothing
from calibration.tensor_statistics import TensorStatistics

METHODS = ("auto", "minmax", "percentile", "entropy", "mse")
#: A later, more elaborate candidate must bring the error down to this part of an earlier one's: anything nearer is
#: within what another sample of rows would change.
CLEARLY = 0.9
#: A range that clips must bring the error down to this part of the full range's. Clipping always hits the same few
#: tokens and channels, and that adds up over the layers as rounding does not: MiniLM without smoothing has an embedding
#: cosine of 0.987 with full ranges and 0.968 with those of the least error, layer by layer.
CLIPPING_GAIN = 0.5
_TINY = float(np.finfo(np.float32).tiny)
#: Parts of the full range tried for the least output error.
_CLIP_RATIOS = (0.9, 0.8, 0.7, 0.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked for: range method (one of ``METHODS``), techniques, and the integers."""

    method: str = "auto"
    smooth: bool = True
    bias_correction: bool = True
    activation_bits: int = 8
    weight_bits: int = 8
    symmetric: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearChoice:
    """One linear's part of a choice.

    ``weight_scale`` float32 ``[N]`` belongs to the weight times the smoothing; ``error`` is the squared error of the
    output over the output's variance, on rows the correction was not fitted on.
    """

    weight_scale: FloatArray
    bias_delta: FloatArray | None
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How the activation is quantised, and what that does to each linear; ``plain_error`` is plain min-max's."""

    smooth: FloatArray | None
    scale: float
    zero_point: int
    dtype: str
    method: str
    linears: tuple[LinearChoice, ...]
    plain_error: float

    def error(self) -> float:
        """Return the mean error over the linears."""
        return float(np.mean([linear.error for linear in self.linears]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Smoothed:
    """Everything in the units of one smoothing vector; ``quantised`` are the weights after quantising and back."""

    smooth: FloatArray
    name: str
    rows: FloatArray
    full: Range
    quantised: tuple[FloatArray, ...]
    weight_scales: tuple[FloatArray, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """One candidate and the error it showed, a linear."""

    smoothed: _Smoothed
    range: Range
    errors: tuple[float, ...]

    def error(self) -> float:
        return float(np.mean(self.errors))


def choose(statistics: TensorStatistics, weights: Sequence[FloatArray], options: Options) -> Choice:
    """Return the best way to quantise an activation of ``[rows, K]`` that linears with ``weights`` ``[K, N]`` read.

    First every smoothing with its full range, then every range for the best smoothing: the two hardly interact, and the
    search stays short. Where candidates are close, the simpler one wins; clipping needs a clear gain.
    """
    outputs = [statistics.sample @ weight for weight in weights]
    trials = [_try(each, each.full, outputs, options) for each in _smooth_all(statistics, weights, options)]
    best = _pick(trials)
    if options.method != "minmax":
        ranged = [_try(best.smoothed, each, outputs, options) for each in _find_ranges(best.smoothed, options)]
        least = min(ranged, key=_Trial.error)
        if options.method != "auto" or least.error() < CLIPPING_GAIN * best.error():
            best = least
    return _settle(best, statistics, weights, trials[0].error(), options)


def _smooth_all(statistics: TensorStatistics, weights: Sequence[FloatArray], options: Options) -> Iterator[_Smoothed]:
    """Yield the problem without smoothing, then with more and more of it."""
    yield _apply_smoothing(np.ones(len(statistics.minimum), np.float32), "", statistics, weights, options)
    if options.smooth:
        for alpha in ALPHAS:
            smooth = find_smoothing(statistics.absmax(), weights, alpha)
            yield _apply_smoothing(smooth, f"SmoothQuant {alpha:g}", statistics, weights, options)


def _apply_smoothing(
    smooth: FloatArray, name: str, statistics: TensorStatistics, weights: Sequence[FloatArray], options: Options
) -> _Smoothed:
    quantised, scales = [], []
    for weight in weights:
        integers, scale, _ = quantise_weight(weight * smooth[:, None], 1, options.weight_bits)
        quantised.append(integers * scale)
        scales.append(scale)
    low, high = float((statistics.minimum / smooth).min()), float((statistics.maximum / smooth).max())
    return _Smoothed(
        smooth=smooth,
        name=name,
        rows=statistics.sample / smooth,
        full=_make_range(low, high, options.symmetric, "minmax"),
        quantised=tuple(quantised),
        weight_scales=tuple(scales),
    )


def _make_range(low: float, high: float, symmetric: bool, method: str) -> Range:
    low, high = min(low, 0.0), max(high, 0.0)
    return (
        Range(low=min(low, -high), high=max(high, -low), method=method)
        if symmetric
        else Range(low=low, high=high, method=method)
    )


def _find_ranges(smoothed: _Smoothed, options: Options) -> Iterator[Range]:
    """Yield the ranges that clip, by the asked method, from the rows in the smoothing's units."""
    method, bits, symmetric = options.method, options.activation_bits, options.symmetric
    histogram = Histogram.empty().update(smoothed.rows)
    if method in ("auto", "percentile"):
        yield from (find_percentile(histogram, percentile, symmetric=symmetric) for percentile in PERCENTILES)
    if method in ("auto", "entropy"):
        yield find_entropy(histogram, bits, symmetric=symmetric)
    if method in ("auto", "mse"):
        yield find_mse(histogram, bits, symmetric=symmetric)
    if method == "auto":
        for ratio in _CLIP_RATIOS:
            yield Range(low=smoothed.full.low * ratio, high=smoothed.full.high * ratio, method=f"output mse {ratio:g}")


def _quantise_rows(smoothed: _Smoothed, chosen: Range, options: Options) -> FloatArray:
    scale, zero_point, grid = chosen.fit(options.activation_bits, symmetric=options.symmetric)
    return fake_quantise(smoothed.rows, scale, zero_point, grid)


def _try(smoothed: _Smoothed, chosen: Range, outputs: Sequence[FloatArray], options: Options) -> _Trial:
    rows = _quantise_rows(smoothed, chosen, options)
    half = len(rows) // 2
    errors = []
    for weight, output in zip(smoothed.quantised, outputs, strict=True):
        difference = rows @ weight - output
        if options.bias_correction and half:
            difference = difference[half:] - difference[:half].mean(axis=0)
            output = output[half:]
        power = float(np.square(output - output.mean(axis=0)).sum(dtype=np.float64))
        errors.append(float(np.square(difference).sum(dtype=np.float64)) / max(power, _TINY))
    return _Trial(smoothed=smoothed, range=chosen, errors=tuple(errors))


def _pick(trials: Sequence[_Trial]) -> _Trial:
    """Return the first trial that is not clearly worse than the best."""
    best = min(trial.error() for trial in trials)
    return next(trial for trial in trials if trial.error() * CLEARLY <= best)


def _settle(
    trial: _Trial, statistics: TensorStatistics, weights: Sequence[FloatArray], plain_error: float, options: Options
) -> Choice:
    """Return the choice a trial stands for, with its bias correction fitted on all rows and the exact means."""
    smoothed = trial.smoothed
    scale, zero_point, grid = trial.range.fit(options.activation_bits, symmetric=options.symmetric)
    rows = _quantise_rows(smoothed, trial.range, options) * smoothed.smooth
    mean = statistics.mean()
    linears = []
    for number, weight in enumerate(weights):
        delta = None
        if options.bias_correction:
            quantised = smoothed.quantised[number] / smoothed.smooth[:, None]
            delta = find_bias_delta(mean, statistics.sample, rows, weight, quantised)
        linears.append(
            LinearChoice(weight_scale=smoothed.weight_scales[number], bias_delta=delta, error=trial.errors[number])
        )
    return Choice(
        smooth=smoothed.smooth if smoothed.name else None,
        scale=scale,
        zero_point=zero_point,
        dtype=grid.dtype,
        method=" + ".join(filter(None, (smoothed.name, trial.range.method))),
        linears=tuple(linears),
        plain_error=plain_error,
    )


def choose_blindly(statistics: TensorStatistics, options: Options) -> tuple[Range, float]:
    """Return (range, error) of an activation whose outputs cannot be computed from rows, as a Conv's over a window.

    The error is that of the activation itself: squared, over its variance.
    """
    smoothed = _apply_smoothing(np.ones(len(statistics.minimum), np.float32), "", statistics, (), options)
    full = [] if options.method not in ("auto", "minmax") else [smoothed.full]
    best, best_error = smoothed.full, np.inf
    power = float(np.square(statistics.sample - statistics.sample.mean()).sum(dtype=np.float64))
    for chosen in [*full, *(_find_ranges(smoothed, options) if options.method != "minmax" else ())]:
        difference = _quantise_rows(smoothed, chosen, options) - statistics.sample
        error = float(np.square(difference).sum(dtype=np.float64)) / max(power, _TINY)
        if error < best_error * CLEARLY:
            best, best_error = chosen, error
    return best, best_error
