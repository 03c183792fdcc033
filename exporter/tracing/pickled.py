"""Old checkpoints whose weights are a pickle, read without running anything that is in it.

In: a directory with ``pytorch_model.bin``. Out: another with ``model.safetensors``. Imports torch.
"""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from runtimes.errors import UnsupportedModel

PICKLED_NAME = "pytorch_model.bin"
_KEPT = (".json", ".txt", ".model")


def convert_pickle(directory: Path, target: Path) -> Path:
    """Write the checkpoint of ``directory`` into ``target`` with its weights as safetensors.

    Raises:
        UnsupportedModel: the pickle holds more than tensors, or is damaged.
    """
    path = directory / PICKLED_NAME
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        weights = {str(name): tensor.clone().contiguous() for name, tensor in loaded.items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, OSError) as error:
        raise UnsupportedModel(
            "the weights are a pickle of more than tensors, which can run any code and is not opened",
            where=str(path),
            cure="load it once where you trust it and save it with model.save_pretrained(directory)",
        ) from error
    target.mkdir()
    for file in directory.iterdir():
        if file.suffix in _KEPT:
            shutil.copyfile(file, target / file.name)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target
