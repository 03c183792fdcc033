"""What is PyTorch's own: no unpickling of code, modules and checkpoints as sessions."""

import pickle
import zipfile

import numpy as np
import pytest

from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import CorruptArtifact, DataError, UnsupportedModel
from runtimes.torch_rt import TorchOptions, TorchRuntime
from tests.contract.tiny_models import write_pt2

torch = pytest.importorskip("torch")


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def rewrite(path, target, change):
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as out:
        for name in source.namelist():
            out.writestr(name, change(name, source.read(name)))
    return target


def test_a_program_with_pickled_code_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "exploded"
    plain = write_pt2(tmp_path)
    payload = tmp_path / "bomb.pt"
    torch.save(((Bomb(marker),), {}), payload, pickle_module=pickle)

    def arm(name, data):
        return payload.read_bytes() if name.endswith("sample_inputs/model.pt") else data

    armed = rewrite(plain, tmp_path / "armed.pt2", arm)
    with pytest.raises(CorruptArtifact, match="more than tensors"):
        TorchRuntime().build(armed, tmp_path / "out.pt2")
    assert not marker.exists()


def test_a_program_with_pickled_weights_is_refused(tmp_path):
    def arm(name, data):
        return data.replace(b'"use_pickle": false', b'"use_pickle": true') if "weights_config" in name else data

    armed = rewrite(write_pt2(tmp_path), tmp_path / "armed.pt2", arm)
    with pytest.raises(CorruptArtifact, match=r"pickled objects \(at .*linear"):
        TorchRuntime().build(armed, tmp_path / "out.pt2")


def test_another_archive_is_not_a_program(tmp_path):
    path = tmp_path / "other.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(UnsupportedModel, match="older format"):
        TorchRuntime().build(path, tmp_path / "out.pt2")


def test_an_onnx_artifact_is_not_for_torch(tmp_path):
    with pytest.raises(CorruptArtifact, match="cannot run a 'onnx'"):
        TorchRuntime().open(Artifact(path=tmp_path / "m.onnx", kind="onnx", sha256="", inputs=(), outputs=()))


def test_modules_return_tensors_tuples_or_mappings():
    x = TensorSpec(name="x", dtype="float32", shape=("n",))
    outputs = tuple(TensorSpec(name=name, dtype="float32", shape=("n",)) for name in ("y", "z"))

    class Pair(torch.nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.wrap = wrap

        def forward(self, x):
            return self.wrap(x + 1, x + 2)

    feeds = {"x": np.zeros(2, np.float32)}
    for wrap in (lambda y, z: (y, z), lambda y, z: [y, z], lambda y, z: {"z": z, "y": y, "more": 3}):
        answer = TorchRuntime(TorchOptions(threads=1)).open_module(Pair(wrap), [x], outputs).run(feeds)
        assert {name: value.tolist() for name, value in answer.items()} == {"y": [1, 1], "z": [2, 2]}
    with pytest.raises(UnsupportedModel, match="no tensor for: z"):
        TorchRuntime().open_module(Pair(lambda y, _: y), [x], outputs).run(feeds)


def test_a_folder_without_a_checkpoint_is_corrupt(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(CorruptArtifact, match="not a readable checkpoint"):
        TorchRuntime().open_checkpoint(tmp_path)


def test_a_checkpoint_runs_and_refuses_bad_ids(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    session = TorchRuntime().open_checkpoint(tmp_path)
    ones = np.ones((2, 5), np.int64)
    feeds = {"input_ids": ones, "attention_mask": ones, "token_type_ids": ones * 0}
    assert session.run(feeds)["last_hidden_state"].shape == (2, 5, 8)
    with pytest.raises(DataError, match="refused"):
        session.run({**feeds, "input_ids": ones * 99})
