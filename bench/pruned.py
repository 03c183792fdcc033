"""MiniLM with the smallest weights of its encoder's linears set to zero: what sparse kernels are timed on.

In: a checkpoint and a share. Out: another checkpoint. For speed alone: nothing is trained, so its answers are poor.
Magnitude pruning, layer by layer (Han et al. 2015, arXiv:1506.02626), in whole blocks where asked.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_WEIGHTS = "model.safetensors"


def prune_checkpoint(source: Path, share: float, out: Path, *, block: tuple[int, int] = (1, 1)) -> Path:
    """Write ``source`` with the ``share`` of smallest blocks of each linear of its encoder zeroed, unless it is there.

    Args:
        source: A checkpoint folder of a BERT-like encoder in safetensors.
        share: Of the blocks of each weight, by rank.
        out: The new folder.
        block: (outputs, inputs) of a block; a block is as large as its norm.
    """
    if out.is_dir():
        return out
    from safetensors.numpy import load_file, save_file

    tensors = load_file(source / _WEIGHTS)
    for name, weight in tensors.items():
        if "encoder." in name and weight.ndim == 2:
            tensors[name] = prune_weight(weight, share, block)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".pruned.") as scratch:
        made = Path(scratch) / out.name
        shutil.copytree(source, made, ignore=shutil.ignore_patterns(_WEIGHTS))
        save_file(tensors, made / _WEIGHTS, metadata={"format": "pt"})
        made.rename(out)
    return out


def prune_weight(weight: NDArray[np.float32], share: float, block: tuple[int, int]) -> NDArray[np.float32]:
    """Return ``weight`` [out, in] with exactly ``round(share * blocks)`` of its blocks zeroed, the smallest ones.

    Raises:
        ValueError: the blocks do not divide the weight.
    """
    (outputs, inputs), (high, wide) = weight.shape, block
    if outputs % high or inputs % wide:
        raise ValueError(f"blocks of {high}x{wide} do not divide {outputs}x{inputs}")
    blocks = weight.reshape(outputs // high, high, inputs // wide, wide)
    norms = np.square(blocks.astype(np.float64)).sum(axis=(1, 3))
    kept = np.ones(norms.size, bool)
    kept[norms.reshape(-1).argsort(kind="stable")[: round(share * norms.size)]] = False
    pruned: NDArray[np.float32] = (blocks * kept.reshape(norms.shape)[:, None, :, None]).reshape(weight.shape)
    return pruned
