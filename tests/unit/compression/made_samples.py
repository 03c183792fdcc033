"""Samples and contexts for the tests of steps: a task that a small encoder can learn."""

import numpy as np

from compression.context import Context
from compression.objectives.objective import SpecialTokens
from compression.samples import Samples
from tests.unit.compression.made_encoders import CONFIG

TOKENS = SpecialTokens(padding=0, mask=4, every=(0, 1, 2, 3, 4))


def make_samples(count=48, *, seed=0, labelled=True, vocabulary=CONFIG["vocab_size"]):
    """Texts of random tokens; the class is which of three tokens stands at the second place."""
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for _ in range(count):
        ids = rng.integers(8, vocabulary, int(rng.integers(3, 9)), dtype=np.int64)
        label = int(rng.integers(0, CONFIG["num_labels"]))
        ids[1] = 5 + label
        rows.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})
        labels.append(label)
    return Samples(rows=tuple(rows), labels=np.array(labels) if labelled else None)


def make_context(**changed):
    """A context with samples to learn from and to measure on, and nothing kept on disk."""
    given = {"train_samples": make_samples(), "held_out": make_samples(24, seed=1), "tokens": TOKENS, **changed}
    return Context(**given)
