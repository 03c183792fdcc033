"""What is PyTorch's own: no unpickling of code, modules and checkpoints as sessions."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import CorruptArtifact, DataError, MissingDependency, UnsupportedModel
from runtimes.torch_rt import CudaClock, TorchOptions, TorchRuntime
from tests.contract.tiny_models import write_pt2

torch = pytest.importorskip("torch")


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def pt2(path):
    return Artifact(path=path, kind="pt2", sha256="", inputs=(), outputs=())


def make_feeds(specs, rows):
    generator = np.random.default_rng(0)
    return {spec.name: generator.standard_normal((rows, *spec.shape[1:])).astype(spec.dtype) for spec in specs}


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


@pytest.mark.parametrize("change", ["narrower", "renamed"])
def test_a_checkpoint_with_other_layers_than_its_config_is_refused(tmp_path, change):
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file, save_file

    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    weight = weights.pop(name)
    weights[name if change == "narrower" else f"{name}_levels"] = weight[:4].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModel, match=name) as refused:
        TorchRuntime().open_checkpoint(tmp_path)
    assert "stepdown export" in refused.value.cure


def test_a_classifier_runs_with_its_head(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    ones = np.ones((2, 5), np.int64)
    feeds = {"input_ids": ones, "attention_mask": ones, "token_type_ids": ones * 0}
    shapes = {
        "BertForSequenceClassification": (3, {"logits": (2, 3)}),
        "BertForTokenClassification": (3, {"logits": (2, 5, 3)}),
        "BertForMaskedLM": (3, {"logits": (2, 5, 20)}),
        "BertForQuestionAnswering": (2, {"start_logits": (2, 5), "end_logits": (2, 5)}),
    }
    for name, (config.num_labels, expected) in shapes.items():
        getattr(transformers, name)(config).save_pretrained(tmp_path / name)
        session = TorchRuntime().open_checkpoint(tmp_path / name)
        assert {key: value.shape for key, value in session.run(feeds).items()} == expected
        assert [(spec.name, len(spec.shape)) for spec in session.outputs] == [(k, len(v)) for k, v in expected.items()]


def test_without_a_gpu_cuda_is_a_missing_dependency():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    runtime = TorchRuntime(TorchOptions(device="cuda"))
    assert "sees no CUDA GPU" in runtime.why_unavailable()
    with pytest.raises(MissingDependency, match="choose the device cpu") as caught:
        runtime.open(Artifact(path=Path("m.pt2"), kind="pt2", sha256="", inputs=(), outputs=()))
    assert caught.value.exit_code == 3


def test_without_a_compiler_torch_compile_is_a_missing_dependency(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "needs a C++ compiler" in TorchRuntime(TorchOptions(compiled=True)).why_unavailable()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning:torch")
def test_compiled_answers_like_eager_at_every_shape(tmp_path):
    path = write_pt2(tmp_path)
    eager, compiled = (TorchRuntime(TorchOptions(compiled=flag)).open(pt2(path)) for flag in (False, True))
    for rows in range(1, 11):  # more shapes than Dynamo recompiles for by itself
        feeds = make_feeds(eager.inputs, rows)
        for name, value in eager.run(feeds).items():
            np.testing.assert_allclose(compiled.run(feeds)[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("device_inputs", [False, True])
def test_a_gpu_answers_like_the_cpu_and_its_clock_goes_forward(tmp_path, device_inputs):
    path = write_pt2(tmp_path)
    cpu = TorchRuntime().open(pt2(path))
    gpu = TorchRuntime(TorchOptions(device="cuda", device_inputs=device_inputs)).open(pt2(path))
    feeds = make_feeds(cpu.inputs, 3)
    for name, value in cpu.run(feeds).items():
        np.testing.assert_allclose(gpu.run(feeds)[name], value, rtol=1e-3, atol=1e-3)
    clock, call = CudaClock(), gpu.prepare(feeds)
    before = clock.now_ns()
    call()
    assert clock.now_ns() > before
