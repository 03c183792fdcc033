"""torch-pruning's structured pruner, one-shot, in an environment of its own.

In: a BERT-like classifier's checkpoint and labelled samples. Out: a smaller checkpoint of our own form, so that both
are measured by the same code. Only heads, or only neurons, leave: what else it can prune has no counterpart.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.peers.environment import open_environment
from bench.peers.stepdown_cli import run_measured

REQUIREMENTS = ("torch-pruning==1.6.1", "torch==2.13.0", "transformers==5.23.0")

# Its own example for BERT (examples/transformers/prune_hf_bert.py), held to one kind of unit. It traces dependencies by
# autograd, so everything but the units' own linears is named as not to be pruned.
_PRUNE = """
import json, sys
import numpy as np
import torch
import torch_pruning as tp
from safetensors.torch import save_model
from torch import nn
from transformers import AutoModelForSequenceClassification

source, samples, out, units, importance, sparsity, whole = sys.argv[1:]
torch.manual_seed(0)
model = AutoModelForSequenceClassification.from_pretrained(source, attn_implementation="eager", local_files_only=True)
model.eval()
with np.load(samples) as given:
    data = {name: torch.from_numpy(given[name]) for name in given.files}
labels = data.pop("labels")
if importance == "taylor":
    for start in range(0, len(labels), 32):
        batch = {name: value[start : start + 32] for name, value in data.items()}
        part = labels[start : start + 32]
        loss = nn.functional.cross_entropy(model(**batch).logits, part)
        (loss * len(part) / len(labels)).backward()
score = {
    "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "taylor": lambda: tp.importance.GroupTaylorImportance(),
}[importance]()
wanted = (".query", ".key", ".value") if units == "heads" else (".intermediate.dense",)
linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
ignored = [module for name, module in model.named_modules()
           if isinstance(module, (nn.Linear, nn.LayerNorm, nn.Embedding)) and not name.endswith(wanted)]
attention = {name: module for name, module in model.named_modules() if hasattr(module, "all_head_size")}
heads = {linears[f"{name}.{part}"]: module.num_attention_heads
         for name, module in attention.items() for part in ("query", "key", "value")}
pruner = tp.pruner.BasePruner(
    model,
    {name: value[:1] for name, value in data.items()},
    importance=score,
    global_pruning=whole == "global",
    pruning_ratio=float(sparsity),  # without it no heads leave either
    prune_head_dims=False,
    num_heads=heads if units == "heads" else {},
    prune_num_heads=units == "heads",
    head_pruning_ratio=float(sparsity) if units == "heads" else 0.0,
    ignored_layers=ignored,
    output_transform=lambda result: result.logits.sum(),
)
pruner.step()
sizes = {
    name: {"kind": "linear", "inputs": it.in_features, "outputs": it.out_features, "bias": it.bias is not None}
    for name, it in linears.items()
}
left = {name: linears[f"{name}.query"].out_features // it.attention_head_size for name, it in attention.items()}
model.config.save_pretrained(out)
save_model(model, f"{out}/model.safetensors", metadata={"format": "pt"})
document = {"schema": 2, "modules": sizes, "heads": left, "recipe": {}, "steps": [], "source": {}, "export": {}}
with open(f"{out}/stepdown.json", "w") as stream:
    json.dump(document, stream)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What leaves: ``units``, scored by ``importance``, the share ``sparsity`` of each layer or of the whole model."""

    units: Literal["heads", "neurons"]
    importance: Literal["magnitude", "taylor"]
    sparsity: float
    scope: Literal["layer", "global"] = "layer"


def open_torch_pruning(cache: Path) -> Path:
    """Return the Python that has torch-pruning. Raises as :func:`~bench.peers.environment.open_environment`."""
    return open_environment(cache / "environment-torch-pruning", REQUIREMENTS)


def prune_checkpoint(
    python: Path, checkpoint: Path, out: Path, samples: Mapping[str, NDArray[np.int64]], pruning: Pruning
) -> None:
    """Prune ``checkpoint`` into the folder ``out``, once and without training.

    Args:
        python: Of an environment with torch-pruning.
        checkpoint: A BERT-like classifier's folder.
        out: The new folder; tokenizer files are not copied.
        samples: Inputs by name [samples, sequence], and ``labels`` [samples].
        pruning: What leaves.

    Raises:
        UnsupportedModel: it failed; the message ends with what it said.
    """
    words = [str(value) for value in asdict(pruning).values()]
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".torch-pruning.") as scratch:
        given, made = Path(scratch) / "samples.npz", Path(scratch) / out.name
        np.savez(given, allow_pickle=False, **samples)
        run_measured([str(python), "-c", _PRUNE, str(checkpoint), str(given), str(made), *words])
        made.rename(out)
