"""What the sparse operators compute, in numpy: every kernel is tested against it.

In: activations, a stored weight, a bias. Out: activations. Must not import: anything but numpy.

The integer form is exact up to the activation function: the same quantised activations, the same sum, and each float32
operation in the order written here, none of them fused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from runtimes.sparse.storage import StoredWeight, decode

Activation = Literal["none", "relu", "gelu", "gelu_tanh", "silu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

_SMALLEST_NORMAL = np.finfo(np.float32).tiny
_erf = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """What may follow the activation: ``LayerNormalization(y + residual)`` over the last axis.

    Attributes:
        residual: float32, the shape of the answer.
        scale: float32 [out].
        bias: float32 [out].
        epsilon: Added to the variance.
    """

    residual: NDArray[np.float32]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    epsilon: float


def sparse_linear(
    x: NDArray[np.float32],
    stored: StoredWeight,
    bias: NDArray[np.float32],
    activation: Activation,
    norm: Norm | None = None,
) -> NDArray[np.float32]:
    """Return ``activation(x @ weight.T + bias)``, normalised if asked; summed in float64 and rounded once.

    Every zero is multiplied here. The kernels skip zeros, so that an infinite or NaN input reaches only the outputs
    that use it: the two agree where x is finite.

    Args:
        x: float32 [..., in].
        stored: float32 values.
        bias: float32 [out].
        activation: One of :data:`ACTIVATIONS`.
        norm: What follows.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        sums = x.astype(np.float64) @ decode(stored).T.astype(np.float64) + bias
        return _finish(sums, activation, norm)


def sparse_linear_int8(
    x: NDArray[np.float32],
    stored: StoredWeight,
    scales: NDArray[np.float32],
    bias: NDArray[np.float32],
    activation: Activation,
    norm: Norm | None = None,
) -> NDArray[np.float32]:
    """Return ``activation(float(sum of (q - zero_point) * value) * (step * scale) + bias)``, normalised if asked.

    Each token is quantised by itself (:func:`quantise_tokens`); the integers and the float32 before the activation are
    exact, what follows is rounded once.

    Args:
        x: float32 [..., in]; a token with NaN or infinity, or whose range is no float32, answers NaN.
        stored: int8 values.
        scales: float32 [out], the weight is scale * value.
        bias: float32 [out].
        activation: One of :data:`ACTIVATIONS`.
        norm: What follows.
    """
    levels, steps, zero_points = quantise_tokens(x)
    sums = (levels.astype(np.int64) - zero_points[..., None]) @ decode(stored).T.astype(np.int64)
    with np.errstate(invalid="ignore", over="ignore"):
        factors = steps[..., None] * scales
        before = sums.astype(np.float32) * factors + bias
        return _finish(before.astype(np.float64), activation, norm)


def attention(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    seen: NDArray[np.bool_] | None,
    *,
    heads: int,
    scale: float,
) -> NDArray[np.float32]:
    """Return ``softmax(scale * q @ k.T) @ v`` of each text and head (Vaswani et al., arXiv:1706.03762).

    Taken in float64 and rounded once. A key that is not seen takes no part; a text without any sees all.

    Args:
        q: float32 [batch, queries, heads * size].
        k: float32 [batch, keys, heads * size].
        v: As ``k``.
        seen: bool [batch, keys]; None is all.
        heads: How many share the last axis.
        scale: Above 0.
    """
    queries, keys, values = (
        x.astype(np.float64).reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(0, 2, 1, 3) for x in (q, k, v)
    )
    scores = queries @ keys.swapaxes(2, 3) * scale
    if seen is not None:
        scores = np.where((seen | ~seen.any(axis=1, keepdims=True))[:, None, None, :], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    answers: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True) @ values
    return answers.transpose(0, 2, 1, 3).reshape(q.shape).astype(np.float32)


def normalise(y: NDArray[np.float64], norm: Norm) -> NDArray[np.float64]:
    """Add the residual and normalise each token (the last axis); one with NaN or infinity answers NaN."""
    total = y + norm.residual
    rest = total - total.mean(axis=-1, keepdims=True)
    variance = (rest**2).mean(axis=-1, keepdims=True)
    return np.asarray(rest / np.sqrt(variance + norm.epsilon) * norm.scale + norm.bias, np.float64)


def _finish(before: NDArray[np.float64], activation: Activation, norm: Norm | None) -> NDArray[np.float32]:
    answer: NDArray[np.float64] = activate(before, activation)
    return (answer if norm is None else normalise(answer, norm)).astype(np.float32)


def quantise_tokens(x: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """Quantise each token (the last axis) to uint8 by its own range, which always holds zero.

    ``low = min(0, min x)``, ``high = max(0, max x)``, ``step = (high - low) / 255``, or 1 where that is below the
    smallest normal number (so that its inverse is finite); ``inverse = 1 / step``;
    ``zero_point = clamp(round(-low * inverse), 0, 255)``; ``q = clamp(round(x * inverse) + zero_point, 0, 255)``.
    All in float32, rounded to even; products with the inverse, no division by the step. A token with NaN or infinity,
    or whose ``high - low`` overflows, has a step of NaN and zeros for the rest.

    Args:
        x: float32 [..., in].

    Returns:
        uint8 [..., in], float32 [...] steps, int64 [...] zero points.
    """
    one = np.float32(1)
    with np.errstate(invalid="ignore", over="ignore"):
        low = np.minimum(x.min(axis=-1, initial=0), np.float32(0))
        high = np.maximum(x.max(axis=-1, initial=0), np.float32(0))
        span = high - low
        usable = np.isfinite(span)
        steps = np.where(usable, span, 0) / np.float32(255)
        steps = np.where(steps < _SMALLEST_NORMAL, one, steps).astype(np.float32)
        inverses = one / steps
        zero_points = np.where(usable, np.clip(np.rint(-low * inverses), 0, 255), 0).astype(np.int64)
        rounded = np.rint(np.where(usable[..., None], x, 0) * inverses[..., None])
    levels = np.clip(rounded + zero_points[..., None].astype(np.float32), 0, 255).astype(np.uint8)
    return levels, np.where(usable, steps, np.float32(np.nan)).astype(np.float32), zero_points


def activate(x: NDArray[np.float64], activation: Activation) -> NDArray[Any]:
    """Apply an activation; NaN stays NaN. Both forms of GELU, and SiLU: Hendrycks and Gimpel, arXiv:1606.08415."""
    match activation:
        case "none":
            return x
        case "relu":
            return np.maximum(x, 0.0)
        case "gelu":
            return 0.5 * x * (1.0 + np.asarray(_erf(x * math.sqrt(0.5)), np.float64))
        case "gelu_tanh":
            return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
        case "silu":
            # No power is above 1: none overflows.
            return x * np.exp(np.minimum(x, 0.0)) / (1.0 + np.exp(-np.abs(x)))
