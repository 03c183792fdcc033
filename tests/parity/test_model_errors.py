"""A model that cannot be used says so: what, where, and what to do; nothing is written."""

import json
import pickle

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save_file

from exporter.source import open_source
from exporter.tolerances import read_tolerance
from exporter.tracing.parity import check_parity
from exporter.tracing.program import ParityCase, Program
from exporter.tracing.trace import trace
from exporter.write_model import write_model
from runtimes.errors import CorruptArtifact, ParityFailure, UnsupportedModel, UsageError
from runtimes.ort import describe_onnx

MODULES = """
import torch
from torch import nn


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x)[1]


class Branch(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


class Fixed(nn.Module):
    def forward(self, x):
        return x.reshape(2, 12)


class Word(nn.Module):
    def forward(self, x):
        return x, "word"


X = torch.ones(2, 3, 4)


def svd():
    return Net(), (X,)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.decomposition = Spectrum()

    def forward(self, x):
        return self.decomposition(self.first(x))


def branch():
    return Branch(), (X,)


def fixed():
    return Fixed(), (X,)


def word():
    return Word(), (X,)


def nan():
    net = nn.Sequential(nn.Linear(4, 4))
    nn.init.constant_(net[0].weight, float("nan"))
    return net, (X,)


def dead():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[0].bias)
    return net, (X,)


def number():
    return 3


def no_inputs():
    return nn.Linear(4, 4), ()


def scalar():
    return nn.Linear(4, 4), (torch.tensor(1.0),)
"""


@pytest.fixture
def modules(tmp_path):
    path = tmp_path / "modules.py"
    path.write_text(MODULES)
    return path


@pytest.fixture
def out(tmp_path):
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


@pytest.fixture
def bert(case_model, tmp_path):
    """A copy of the tiny BERT that a test may damage."""
    directory = tmp_path / "bert"
    directory.mkdir()
    for path in open_source(case_model("bert")).path.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    return directory


def test_operator_without_onnx_is_named_with_its_module(modules, out):
    with pytest.raises(UnsupportedModel, match=r"cannot express the operator aten._linalg_svd") as caught:
        trace(open_source(f"{modules}:svd"), out)
    assert "module 'decomposition'" in str(caught.value)
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("factory", "kind", "message"),
    [
        ("branch", UnsupportedModel, "cannot trace the model.*data-dependent"),
        ("fixed", UnsupportedModel, "that axis cannot vary"),
        ("word", UnsupportedModel, "not a tensor"),
        ("nan", UnsupportedModel, r"NaN or infinity: 16 of 16 entries, the first at \(0, 0\) \(at tensor 0.weight\)"),
        ("number", UsageError, "returned something else"),
        ("no_inputs", UsageError, "not tensors with a batch axis"),
        ("scalar", UsageError, "not tensors with a batch axis"),
        ("missing", UsageError, "there is no function 'missing'"),
    ],
)
def test_module_that_cannot_be_traced(factory, kind, message, modules, out, capfd):
    with pytest.raises(kind, match=message) as caught:
        trace(open_source(f"{modules}:{factory}"), out)
    assert "to fix:" in str(caught.value)
    assert not list(out.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["import nowhere_at_all", "def make(:", "undefined_name"])
def test_file_that_cannot_be_imported(text, tmp_path, out):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(UsageError, match="cannot be imported"):
        trace(open_source(f"{tmp_path / 'broken.py'}:make"), out)


def test_dead_tensor_is_a_finding_and_not_fatal(modules, out):
    traced = trace(open_source(f"{modules}:dead"), out)
    assert traced.findings == ("the tensor '1.weight' [2, 4] is dead: every entry is zero",)


def test_infinity_in_a_checkpoint_names_the_tensor(bert, out):
    weights = load_file(bert / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    weights[name] = weights[name].copy()
    weights[name][3, 5] = np.inf
    save_file(weights, bert / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModel, match=r"1 of 2048 entries, the first at \(3, 5\)") as caught:
        trace(open_source(str(bert)), out)
    assert f"tensor {name}" in str(caught.value)
    assert not list(out.iterdir())


def test_checkpoint_without_the_head_of_the_task_is_refused(bert, out):
    with pytest.raises(UnsupportedModel, match=r"no weights for text-classification: classifier.bias") as caught:
        trace(open_source(str(bert), task="text-classification"), out)
    assert "--task" in str(caught.value)


def test_architecture_of_nobody(bert, out):
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**config, "model_type": "no-such-type"}))
    with pytest.raises(UnsupportedModel, match="transformers cannot load it"):
        trace(open_source(str(bert)), out)


def test_task_that_an_architecture_does_not_have(case_model, out):
    with pytest.raises(UnsupportedModel, match="no weights for fill-mask"):
        trace(open_source(case_model("bert"), task="fill-mask"), out)


def test_damaged_program(tmp_path, out):
    (tmp_path / "net.pt2").write_bytes(b"PK not an archive")
    with pytest.raises(CorruptArtifact, match="not an exported program"):
        trace(open_source(str(tmp_path / "net.pt2")), out)


def test_pickles_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    for name in ("model.bin", "model.pt", "model.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(UnsupportedModel, match="pickle") as caught:
            open_source(str(tmp_path / name))
        assert "safetensors" in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def make_onnx(tmp_path, weight=None, location=None):
    tensor = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32) if weight is None else weight, "w")
    if location is not None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [tensor],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )
    return path


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin"])
def test_external_data_outside_the_folder_is_refused(location, tmp_path, out):
    inner = tmp_path / "model"
    inner.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    with pytest.raises(CorruptArtifact, match="outside"):
        trace(open_source(str(make_onnx(inner, location=location))), out)
    assert not list(out.iterdir())


def test_external_data_through_a_link_is_refused(tmp_path, out):
    inner = tmp_path / "model"
    inner.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    (inner / "weights.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(CorruptArtifact, match="outside"):
        trace(open_source(str(make_onnx(inner, location="weights.bin"))), out)


def test_external_data_inside_the_folder_travels(tmp_path, out):
    inner = tmp_path / "model"
    inner.mkdir()
    (inner / "weights.bin").write_bytes(np.full((4, 4), 2, np.float32).tobytes())
    traced = trace(open_source(str(make_onnx(inner, location="weights.bin"))), out)
    assert traced.artifact.files == (out / "model.onnx",)
    stored = onnx.load(traced.artifact.path).graph.initializer[0]
    assert np.array_equal(onnx.numpy_helper.to_array(stored), np.full((4, 4), 2, np.float32))


@pytest.mark.parametrize("kept", [0, 1, 60, 120])
def test_truncated_onnx(kept, tmp_path, out):
    path = make_onnx(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UnsupportedModel) as caught:
        trace(open_source(str(path)), out)
    assert str(path) in str(caught.value)
    assert not list(out.iterdir())


def test_onnx_that_is_whole_and_does_not_run(tmp_path, out):
    with pytest.raises(UnsupportedModel, match=r"[Ss]hape|[Dd]imension") as caught:
        trace(open_source(str(make_onnx(tmp_path, np.ones((3, 4), np.float32)))), out)
    assert caught.value.exit_code == 4


def test_onnx_with_damaged_text(tmp_path, out):
    path = make_onnx(tmp_path)
    # The operator's name is no UTF-8 any more; sizes and tags are whole.
    path.write_bytes(path.read_bytes().replace(b"MatMul", b"Mat\xff\xfe\xfd"))
    with pytest.raises(UnsupportedModel):
        trace(open_source(str(path)), out)


def test_nan_in_onnx_names_the_tensor(tmp_path, out):
    weight = np.ones((4, 4), np.float32)
    weight[2, 1] = np.nan
    with pytest.raises(UnsupportedModel, match=r"the first at \(2, 1\) \(at tensor w\)"):
        trace(open_source(str(make_onnx(tmp_path, weight))), out)


def test_onnx_of_another_opset_is_refused(tmp_path, out):
    with pytest.raises(UnsupportedModel, match="of opset 18, 21 was asked for"):
        trace(open_source(str(make_onnx(tmp_path))), out, opset=21)


def test_parity_miss_names_output_and_worst_position(tmp_path):
    path = make_onnx(tmp_path)
    model = ir.load(path)

    def reference(feeds):
        expected = feeds["x"] @ np.ones((4, 4), np.float32)
        expected[1, 2] += 0.01
        return {"y": expected}

    case = ParityCase(name="2x4", feeds={"x": np.ones((2, 4), np.float32)})
    program = Program(model=model, reference=reference, cases=(case,), task="custom")
    with pytest.raises(ParityFailure, match=r"output 'y' .* worst at \(1, 2\)") as caught:
        check_parity(program, describe_onnx(write_model(model, path)))
    assert caught.value.exit_code == 5
    assert "inputs 2x4" in str(caught.value)


def test_wrong_arithmetic_is_outside_the_tolerance():
    # What the tolerance is for: a forgotten scale of attention moves outputs by far more than it allows.
    tolerance = read_tolerance("torch-to-onnx")
    assert tolerance.atol + tolerance.rtol < 2e-3
    assert torch.finfo(torch.float32).eps * 512 < tolerance.atol
