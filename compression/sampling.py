"""A few samples to look at a model with, where all of them would take too long.

In: samples, how many, and a generator. Out: batches. Deterministic. Imports torch.
"""

from __future__ import annotations

import torch

from compression.samples import Batch, Samples, read_batches

_BATCH_SIZE = 32


def draw_samples(samples: Samples, count: int, generator: torch.Generator) -> Samples:
    """Return ``count`` of the samples, drawn without replacement; all where there are no more."""
    if count >= len(samples):
        return samples
    return samples.subset(sorted(torch.randperm(len(samples), generator=generator)[:count].tolist()))


def draw_batches(samples: Samples, count: int, generator: torch.Generator) -> list[Batch]:
    """Return batches of ``count`` samples, those of one length together."""
    return list(read_batches(draw_samples(samples, count, generator), _BATCH_SIZE))
