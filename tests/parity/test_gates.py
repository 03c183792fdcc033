"""Layers behind gates and exits: branches of an ONNX graph that are not run where nothing wants them."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from compression.gates.gated_layer import gate_layer
from compression.gates.row_gates import RowGate, summarise
from exporter.options import ExportOptions, TensorRtOptions
from exporter.pipeline import export
from exporter.progress import SilentProgress
from exporter.source import open_source
from exporter.tracing.huggingface import load_model
from exporter.tracing.trace import trace
from tests.corpus.architectures import CASES, SENTENCE, build, train_quantised

LAYERS = ("bert.encoder.layer.0", "bert.encoder.layer.1", "bert.encoder.layer.2")


def add_gates(model, biases):
    """A gate before each layer that always, never, or (None) sometimes wants it."""
    generator = torch.Generator().manual_seed(0)
    for name, bias in zip(LAYERS, biases, strict=True):
        gate = RowGate(64, bias=bias or 0.0)
        gate_layer(model, name, gate.draw(generator) if bias is None else gate)


@pytest.fixture(scope="module")
def gated_case(tmp_path_factory):
    """``gated_case(compress)``: the checkpoint of a BERT of three layers that ``compress`` has edited."""

    def make(compress):
        bert = CASES["bert"]
        case = replace(
            bert,
            name="gated",
            task=SENTENCE,
            config={**bert.config, "num_hidden_layers": 3, "initializer_range": 0.2},
            compress=compress,
        )
        return build(case, tmp_path_factory.mktemp("gated"))

    return make


@pytest.fixture(scope="module")
def gated(gated_case):
    """``gated(bias, ...)``: the checkpoint of a BERT of three gated layers."""
    return lambda *biases: gated_case(lambda model: add_gates(model, biases))


@pytest.fixture(scope="module")
def sometimes(gated):
    return gated(None, None, None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    rng = np.random.default_rng(0)
    words = ("the", "small", "boat", "left", "old", "harbour", "at", "dawn", "rain", "fell", "quiet", "town")
    path.write_text("".join(json.dumps({"text": " ".join(rng.choice(words, 6))}) + "\n" for _ in range(64)))
    return str(path)


def quantise_and_gate(model):
    """Learned scales in every linear, and a gate before each layer."""
    train_quantised(model)
    add_gates(model, (None, None, None))


@pytest.mark.slow
def test_learned_scales_are_integers_in_the_branches_too(gated_case, data, tmp_path):
    model = gated_case(quantise_and_gate)
    options = ExportOptions(
        model=model, output=tmp_path / "out", calibration_data=data, for_isa="avx2", precision="fp32", max_drop=0.5
    )
    path = export(options, SilentProgress()).output / "onnxruntime" / "model.onnx"
    graph = onnx.load(path).graph
    assert [node.op_type for node in graph.node].count("If") == 3
    assert not list_float_layers(graph)


def list_float_layers(graph):
    """The weights of encoder layers that are stored in float."""
    matrices = [tensor for tensor in graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) > 16]
    assert len(matrices) > 3 * 6
    wide = [tensor.name for tensor in matrices if tensor.data_type == onnx.TensorProto.FLOAT]
    return [name for name in wide if "embeddings" not in name and "gate" not in name and "pooler" not in name]


def feed(rows=4, tokens=9):
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 128, (rows, tokens), dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def count_products(path, feeds, tmp_path):
    """Run a graph once and count its products by the layer they are in."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    with open(session.end_profiling(), encoding="utf-8") as file:  # noqa: PTH123 - a name that ONNX Runtime chose
        events = json.load(file)
    names = [event["name"] for event in events if event["name"].endswith("_kernel_time")]
    return {layer: sum(name.startswith(f"{layer}/") and "MatMul" in name for name in names) for layer in LAYERS}


def test_each_gate_is_one_branch_and_answers_agree(sometimes, tmp_path):
    traced = trace(open_source(sometimes), tmp_path)
    assert {report.verdict for report in traced.parity} == {"pass"}
    graph = onnx.load(traced.artifact.path).graph
    assert [node.op_type for node in graph.node].count("If") == 3
    branches = [part.g for node in graph.node if node.op_type == "If" for part in node.attribute]
    # Nodes are called after the layer they are in; weights lie in the main graph, where each is stored once.
    assert all(node.name.startswith("bert.encoder.layer.") for branch in branches for node in branch.node)
    assert not any(branch.initializer for branch in branches)


@pytest.mark.parametrize("biases", [(1.0, -1.0, -1.0), (-1.0, -1.0, 1.0)])
def test_what_no_row_wants_is_not_computed(gated, biases, tmp_path):
    traced = trace(open_source(gated(*biases)), tmp_path)
    counts = count_products(traced.artifact.path, feed(), tmp_path)
    for layer, bias in zip(LAYERS, biases, strict=True):
        assert (counts[layer] > 0) == (bias > 0), counts


def test_rows_choose_for_themselves(sometimes):
    model = load_model(open_source(sometimes).path, SENTENCE)
    feeds = {name: torch.from_numpy(array) for name, array in feed(rows=16).items()}
    gate = model.bert.encoder.layer[0].gate
    wanted = gate(summarise(model.bert.embeddings(feeds["input_ids"]), None)) > 0
    assert 0 < int(wanted.sum()) < 16


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic", "int8-static"])
def test_it_exports_to_onnxruntime(sometimes, data, tmp_path, precision):
    options = ExportOptions(
        model=sometimes,
        output=tmp_path / "out",
        calibration_data=data,
        precision=precision,
        for_isa="avx2",
        max_drop=0.5,
    )
    result = export(options, SilentProgress())
    graph = onnx.load(result.output / "onnxruntime" / "model.onnx").graph
    assert [node.op_type for node in graph.node].count("If") == 3
    assert bool(list_float_layers(graph)) == (precision == "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_builds_for_tensorrt(sometimes, data, tmp_path, precision, rtx):
    options = ExportOptions(
        model=sometimes,
        output=tmp_path / "out",
        targets=("tensorrt",),
        calibration_data=data,
        precision=precision,
        max_drop=0.5,
        tensorrt=TensorRtOptions(library=rtx),
    )
    export(options, SilentProgress())
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["artifacts"]["tensorrt"]["tier"] == "built"
