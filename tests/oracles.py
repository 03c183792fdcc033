"""What single operators compute, from ONNX's definitions and numpy alone: what a graph's integers are compared with.

Products are of integers, in 64 bits: nothing is rounded here that is not rounded by definition.
"""

import numpy as np

# Half of the distance from 1 to the next float32: the largest relative error of one rounding.
ROUNDING = 2.0**-24


def quantise(values, scale, axis=None):
    """QuantizeLinear to int8 around zero: divide in float32, round half to even, saturate."""
    steps = spread(scale, axis, values.ndim)
    return np.clip(np.rint(values.astype(np.float32) / steps), -128, 127).astype(np.int8)


def dequantise(integers, scale, axis=None):
    """DequantizeLinear from int8 around zero, in the type of the scale; float16 is multiplied in float32."""
    return (integers.astype(np.float32) * spread(scale, axis, integers.ndim)).astype(scale.dtype)


def spread(scale, axis, rank):
    """Return the scales as float32, shaped to go with a tensor of ``rank``."""
    values = scale.astype(np.float32)
    return values if values.size == 1 else values.reshape([-1 if at == axis else 1 for at in range(rank)])


def multiply(left, right):
    """MatMul of integers."""
    return left.astype(np.int64) @ right.astype(np.int64)


def convolve(image, weight, *, strides, pads, group):
    """Conv of integers: ``image`` [batch, channels, height, width], ``weight`` [outputs, channels / group, h, w]."""
    top, left, bottom, right = pads
    padded = np.pad(image.astype(np.int64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1]]
    parts = [
        np.einsum("bchwij,ocij->bohw", ours, theirs)
        for ours, theirs in zip(
            np.split(windows, group, axis=1), np.split(weight.astype(np.int64), group, axis=0), strict=True
        )
    ]
    return np.concatenate(parts, axis=1)


def bound_rounding(magnitude, terms):
    """Return by how much a float32 sum of products may miss the exact one, in units of the integers.

    Both factors, their product and each of ``terms`` additions are rounded once (Higham, Accuracy and Stability of
    Numerical Algorithms, 3.1); ``magnitude`` is the sum of the products' magnitudes.
    """
    return (terms + 4) * ROUNDING * magnitude
