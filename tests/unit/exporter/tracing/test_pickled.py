"""Old weights: tensors are read, anything else is refused without being run."""

import os

import pytest
import torch
from safetensors.torch import load_file

from exporter.tracing.pickled import convert_pickle
from runtimes.errors import UnsupportedModel


class Evil:
    """What a pickle can do to who opens it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def old(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "notes.py").write_text("")
    return folder


def test_tensors_become_safetensors(old, tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": weight, "tied": weight, "turned": weight.T}, old / "pytorch_model.bin")
    made = convert_pickle(old, tmp_path / "new")
    assert sorted(path.name for path in made.iterdir()) == ["config.json", "model.safetensors"]
    stored = load_file(made / "model.safetensors")
    assert torch.equal(stored["tied"], weight)
    assert torch.equal(stored["turned"], weight.T)


def test_a_pickle_of_code_is_refused_and_not_run(old, tmp_path):
    torch.save({"a": Evil(tmp_path / "ran")}, old / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match="more than tensors"):
        convert_pickle(old, tmp_path / "new")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04"])
def test_a_damaged_file_is_refused(old, tmp_path, content):
    (old / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(UnsupportedModel):
        convert_pickle(old, tmp_path / "new")
