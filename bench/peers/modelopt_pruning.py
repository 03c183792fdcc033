"""NVIDIA ModelOpt's 2:4 pruning, one-shot, in an environment of its own.

In: a BERT-like checkpoint and samples. Out: the same checkpoint with two of every four weights of its encoder zero.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.peers.environment import open_environment
from bench.peers.stepdown_cli import run_measured

Method = Literal["sparse_magnitude", "sparsegpt"]

# ModelOpt imports requests without asking for it.
REQUIREMENTS = ("nvidia-modelopt==0.47.0", "torch==2.13.0", "transformers==5.23.0", "requests==2.34.2")

# Its defaults, but for the layers (ours prunes the encoder alone) and the device, which is a GPU.
_PRUNE = """
import sys
import modelopt.torch.sparsity as mts
import numpy as np
import torch
import transformers

source, samples, out, method, kind = sys.argv[1:]
classes = getattr(transformers, kind)
model = classes.from_pretrained(source, attn_implementation="eager", local_files_only=True).eval()
with np.load(samples) as given:
    data = {name: torch.from_numpy(given[name]) for name in given.files}

def run(it):
    with torch.no_grad():
        for start in range(0, len(data["input_ids"]), 16):
            it(**{name: value[start : start + 16] for name, value in data.items()})

rules = {"nn.Linear": {"*": None, "*encoder.layer*": {}}}
config = {} if method == "sparse_magnitude" else {"forward_loop": run, "device": "cpu"}
mts.export(mts.sparsify(model, mode=[(method, rules)], config=config)).save_pretrained(out)
"""


def open_modelopt_pruning(cache: Path) -> Path:
    """Return the Python that has ModelOpt. Raises as :func:`~bench.peers.environment.open_environment`."""
    return open_environment(cache / "environment-modelopt-pruning", REQUIREMENTS)


def prune_checkpoint(
    python: Path,
    checkpoint: Path,
    out: Path,
    samples: Mapping[str, NDArray[np.int64]],
    *,
    method: Method,
    auto_class: str = "AutoModelForSequenceClassification",
) -> None:
    """Prune ``checkpoint`` into the folder ``out``, once and without training.

    Args:
        python: Of an environment with ModelOpt.
        checkpoint: A BERT-like folder.
        out: The new folder; tokenizer files are not copied.
        samples: Inputs by name, [samples, sequence].
        method: Its name for it.
        auto_class: The class of transformers that loads it.

    Raises:
        UnsupportedModel: it failed; the message ends with what it said.
    """
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".modelopt.") as scratch:
        given, made = Path(scratch) / "samples.npz", Path(scratch) / out.name
        np.savez(given, allow_pickle=False, **samples)
        run_measured([str(python), "-c", _PRUNE, str(checkpoint), str(given), str(made), method, auto_class])
        made.rename(out)
