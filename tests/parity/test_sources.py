"""Every form of a model traces, with dynamic axes, and agrees with PyTorch."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tokenizers import Tokenizer

from exporter.source import open_source
from exporter.tracing.companions import copy_companions
from exporter.tracing.trace import trace
from runtimes.errors import UsageError
from runtimes.ort import OnnxRuntime
from tests.corpus.architectures import write_cnn

TOKENS = """
import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.body = nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids, mask):
        hidden = torch.relu(self.body(self.embed(ids)))
        weight = mask.unsqueeze(-1).float()
        return {"logits": self.head(hidden), "mean": (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)}


def make():
    torch.manual_seed(0)
    return Tagger(), {"ids": torch.arange(6).reshape(1, 6), "mask": torch.tensor([[1, 1, 1, 1, 0, 0]])}
"""


@pytest.fixture
def onnx_like_optimum(tmp_path):
    """A small encoder as optimum-onnx writes it: its axis names, opset 14, config and tokenizer beside it."""
    generator = np.random.default_rng(0)
    words = generator.normal(size=(128, 8)).astype(np.float32)
    axes = ["batch_size", "sequence_length"]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["words", "input_ids"], ["embedded"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Mul", ["embedded", "column"], ["last_hidden_state"]),
        ],
        "main_graph",
        [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*axes, 8])],
        [
            onnx.numpy_helper.from_array(words, "words"),
            onnx.numpy_helper.from_array(np.array([-1], np.int64), "last"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7)
    onnx.save(model, tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 64})
    )
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path / "model.onnx"


def run(traced, **feeds):
    session = OnnxRuntime().open(traced.artifact)
    try:
        return session.run(feeds)
    finally:
        session.close()


def test_onnx_of_optimum_is_read_and_its_axes_renamed(onnx_like_optimum, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    traced = trace(open_source(str(onnx_like_optimum)), out)
    assert [spec.shape for spec in traced.artifact.inputs] == [("batch", "sequence")] * 2
    assert traced.artifact.outputs[0].shape == ("batch", "sequence", 8)
    assert (traced.task, traced.max_length, traced.parity) == ("feature-extraction", 64, ())
    assert traced.tokenizer == out / "tokenizer.json"
    ids = np.array([[3, 4, 5]])
    given = run(traced, input_ids=ids, attention_mask=np.array([[1, 1, 0]]))["last_hidden_state"]
    words = onnx.numpy_helper.to_array(onnx.load(onnx_like_optimum).graph.initializer[0])
    assert np.array_equal(given[0], words[[3, 4, 5]] * [[1], [1], [0]])


def test_a_tokenizer_beside_onnx_is_used_without_a_config(onnx_like_optimum, tmp_path):
    (tmp_path / "config.json").unlink()
    (tmp_path / "out").mkdir()
    traced = trace(open_source(str(onnx_like_optimum)), tmp_path / "out")
    assert (traced.tokenizer, traced.findings) == (tmp_path / "out" / "tokenizer.json", ())
    assert traced.task == "feature-extraction"


def test_onnx_without_a_tokenizer_says_so_where_it_takes_texts(onnx_like_optimum, tmp_path):
    (tmp_path / "tokenizer.json").unlink()
    for name in ("encoder", "network"):
        (tmp_path / name).mkdir()
    traced = trace(open_source(str(onnx_like_optimum)), tmp_path / "encoder")
    assert traced.tokenizer is None
    assert "no tokenizer" in traced.findings[0]
    images = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> net (float[batch, 2] x) => (float[batch, 2] y) { y = Relu (x) }'
    )
    (tmp_path / "alone").mkdir()
    onnx.save(images, tmp_path / "alone" / "net.onnx")
    traced = trace(open_source(str(tmp_path / "alone" / "net.onnx")), tmp_path / "network")
    assert (traced.tokenizer, traced.findings) == (None, ())


def test_factory_of_a_token_model_varies_in_both_axes(tmp_path):
    (tmp_path / "tagger.py").write_text(TOKENS)
    traced = trace(open_source(f"{tmp_path / 'tagger.py'}:make", task="token-classification"), tmp_path)
    assert traced.task == "token-classification"
    assert [spec.name for spec in traced.artifact.inputs] == ["ids", "mask"]
    assert {spec.name: spec.shape for spec in traced.artifact.outputs} == {
        "logits": ("batch", "sequence", 3),
        "mean": ("batch", 8),
    }
    assert {report.outputs[0].shape[:2] for report in traced.parity} >= {(1, 1), (1, 7), (3, 11), (8, 16)}


def test_tracing_gives_the_same_bytes_in_other_processes_and_places(tmp_path):
    """What ``export --statistics`` relies on: the sha256 of the traced file says which model it is."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom exporter.source import open_source\n"
        "from exporter.tracing.trace import trace\n"
        "trace(open_source(sys.argv[1] + '/tagger.py:make', task='token-classification'), Path(sys.argv[1]))"
    )
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        (tmp_path / seed / "tagger.py").write_text(TOKENS)
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], env=environment, check=True)
    first, second = ((tmp_path / seed / "model.onnx").read_bytes() for seed in ("1", "2"))
    assert first == second


def test_exported_program_keeps_its_ranges(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 2))
    batch = torch.export.Dim("many", min=2, max=5)
    program = torch.export.export(module.eval(), (torch.randn(3, 3, 6, 6),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    traced = trace(open_source(str(tmp_path / "net.pt2")), tmp_path)
    assert traced.artifact.inputs[0].shape == ("batch", 3, 6, 6)
    assert {report.outputs[0].shape for report in traced.parity} == {(2, 2), (3, 2), (5, 2)}


@pytest.mark.parametrize("opset", [18, 21, 23])
def test_opset_is_the_one_asked_for(opset, tmp_path):
    traced = trace(open_source(write_cnn(tmp_path)), tmp_path, opset=opset)
    assert {entry.version for entry in onnx.load(traced.artifact.path).opset_import if not entry.domain} == {opset}


def test_transformers_model_in_another_opset(case_model, tmp_path):
    traced = trace(open_source(case_model("bert-fill-mask")), tmp_path, opset=23)
    assert {entry.version for entry in onnx.load(traced.artifact.path).opset_import if not entry.domain} == {23}


@pytest.mark.parametrize("opset", [17, 26])
def test_opset_that_torch_would_ignore_is_refused(opset, tmp_path):
    with pytest.raises(UsageError, match=r"opset .* not supported") as caught:
        trace(open_source(write_cnn(tmp_path)), tmp_path, opset=opset)
    assert "18 to 25" in str(caught.value)


def test_trace_leaves_the_terminal_alone(tmp_path, capfd):
    trace(open_source(write_cnn(tmp_path)), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_nodes_and_weights_carry_the_names_of_their_modules(traced_case):
    model = onnx.load(traced_case("bert").artifact.path)
    path = "encoder.layer.1.attention.self.key"
    node = next(node for node in model.graph.node if node.name == f"{path}/MatMul")
    assert node.input[1] == f"{path}.weight"
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_padding_mask_is_one_row_for_all_queries(traced_case):
    model = onnx.shape_inference.infer_shapes(onnx.load(traced_case("bert").artifact.path))
    shapes = {
        value.name: [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]
        for value in model.graph.value_info
    }
    masks = [shapes[node.output[0]] for node in model.graph.node if node.op_type == "Where"]
    assert masks == [["batch", 1, 1, "sequence"]]


def test_masked_lm_checkpoint_loses_its_missing_pooler(case_model, tmp_path):
    traced = trace(open_source(case_model("bert-fill-mask"), task="feature-extraction"), tmp_path)
    assert [spec.name for spec in traced.artifact.outputs] == ["last_hidden_state"]


def test_vocabulary_alone_becomes_a_tokenizer(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    (source / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (source / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "small", "boat", "##s"]))
    path, remarks = copy_companions(source, out)
    assert (path, remarks) == (out / "tokenizer.json", ())
    assert Tokenizer.from_file(str(path)).encode("small boats").tokens == ["[CLS]", "small", "boat", "##s", "[SEP]"]


def test_model_without_tokenizer_says_that_texts_cannot_be_used(tmp_path):
    assert copy_companions(tmp_path, tmp_path)[0] is None
    assert "texts cannot be used" in copy_companions(tmp_path, tmp_path)[1][0]
