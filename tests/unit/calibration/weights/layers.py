"""A layer whose inputs are correlated and of different sizes, as those behind a norm are."""

import numpy as np

from calibration.weights.inputs import InputStatistic


def make_layer(rows=48, depth=96, samples=4096, seed=0):
    """Return (weight float32 [rows, depth], inputs float32 [samples, depth])."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, depth)).astype(np.float32)
    mixed = random.standard_normal((samples, depth)) @ (np.eye(depth) + 0.3 * random.standard_normal((depth, depth)))
    return weight, (mixed * np.exp(random.standard_normal(depth))).astype(np.float32)


def describe(inputs):
    """Return the statistic of float32 [samples, depth]."""
    gram = inputs.T.astype(np.float64) @ inputs / len(inputs)
    sizes = np.abs(inputs)
    return InputStatistic(
        gram=gram.astype(np.float32), absmean=sizes.mean(axis=0), peak=sizes.max(axis=0), tokens=inputs[:512]
    )


def measure(weight, rounded, inputs):
    """Return the mean square of what rounding changes at the outputs."""
    return float(np.square(inputs @ (rounded - weight).T).mean())
