"""scikit-learn's truncated SVD of chosen weights, in an environment of its own.

In: a checkpoint and the rank of each weight. Out: a checkpoint of the same shape, its weights of that rank: how good
two factors would be, not how fast.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.peers.environment import open_environment
from bench.peers.stepdown_cli import run_measured

REQUIREMENTS = ("scikit-learn==1.7.2", "safetensors==0.6.2")

_WEIGHTS = "model.safetensors"
_FACTORISE = """
import json, sys
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import TruncatedSVD

source, out, ranks = sys.argv[1:]
tensors = load_file(source)
for name, rank in json.loads(ranks).items():
    weight = tensors[name]
    svd = TruncatedSVD(n_components=rank, algorithm="arpack", random_state=0)
    tensors[name] = (svd.fit_transform(weight) @ svd.components_).astype(weight.dtype)
save_file(tensors, out, metadata={"format": "pt"})
"""


def open_sklearn(cache: Path) -> Path:
    """Return the Python that has scikit-learn. Raises as :func:`~bench.peers.environment.open_environment`."""
    return open_environment(cache / "environment-sklearn", REQUIREMENTS)


def truncate_checkpoint(python: Path, checkpoint: Path, out: Path, ranks: Mapping[str, int]) -> None:
    """Write ``checkpoint`` into the folder ``out`` with each weight of ``ranks`` at its rank, all else as it is.

    Args:
        python: Of an environment with scikit-learn.
        checkpoint: A folder with ``model.safetensors``.
        out: The new folder.
        ranks: By the name of a weight [outputs, inputs].

    Raises:
        UnsupportedModel: it failed; the message ends with what it said.
    """
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".sklearn.") as scratch:
        made = Path(scratch) / out.name
        shutil.copytree(checkpoint, made, ignore=shutil.ignore_patterns(_WEIGHTS))
        words = [str(checkpoint / _WEIGHTS), str(made / _WEIGHTS), json.dumps(dict(ranks))]
        run_measured([str(python), "-c", _FACTORISE, *words])
        made.rename(out)
