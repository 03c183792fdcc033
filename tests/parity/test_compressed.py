"""What compression did to a model is still there in its ONNX graph."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from exporter.source import open_source
from exporter.tracing.huggingface import load_model
from exporter.tracing.trace import trace
from runtimes.errors import UnsupportedModel


def read_weights(traced):
    model = onnx.load(traced.artifact.path)
    return model, {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_pruned_weights_stay_exact_zeros(traced_case, case_model):
    _, weights = read_weights(traced_case("bert-sparse-80"))
    stored = load_file(f"{case_model('bert-sparse-80')}/model.safetensors")
    names = [name for name in weights if ".layer." in name and name.endswith(("dense.weight", "query.weight"))]
    assert len(names) == 4
    for name in names:
        assert np.array_equal(weights[name].T, stored[name])
        assert np.mean(weights[name] == 0) == pytest.approx(0.8, abs=1e-3)


def test_layers_keep_their_own_widths(traced_case):
    _, weights = read_weights(traced_case("bert-pruned"))
    layers = "bert.encoder.layer.{}.{}.weight"
    # Heads of size 8: three are left in the first layer, one in the second.
    assert weights[layers.format(0, "attention.self.query")].shape == (32, 24)
    assert weights[layers.format(1, "attention.self.query")].shape == (32, 8)
    assert weights[layers.format(1, "attention.output.dense")].shape == (8, 32)
    assert weights[layers.format(0, "intermediate.dense")].shape == (32, 40)
    assert weights[layers.format(1, "intermediate.dense")].shape == (32, 16)


def test_low_rank_linears_stay_two_products(traced_case):
    model, weights = read_weights(traced_case("bert-low-rank"))
    path = "encoder.layer.0.attention.self.query"
    assert weights[f"{path}.down.weight"].shape == (32, 8)
    assert weights[f"{path}.up.weight"].shape == (8, 32)
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.name.startswith(path)]
    assert [node.name for node in products] == [f"{path}.down/MatMul", f"{path}.up/MatMul"]
    assert not any(array.shape == (32, 32) and path in name for name, array in weights.items())


@pytest.mark.parametrize("name", ["bert-fill-mask", "albert"])
def test_tied_weights_are_stored_once(name, traced_case):
    _, weights = read_weights(traced_case(name))
    large = [array for array in weights.values() if array.nbytes >= 1024]
    for i, left in enumerate(large):
        for right in large[:i]:
            assert not np.array_equal(left, right)
            assert not np.array_equal(left, right.T)
    embeddings = [array for array in large if 128 in array.shape]
    assert len(embeddings) == 1


def test_learned_scales_become_quantize_and_dequantize(traced_case, case_model):
    model, weights = read_weights(traced_case("bert-qat"))
    stored = load_file(f"{case_model('bert-qat')}/model.safetensors")
    counts = Counter(node.op_type for node in model.graph.node)
    # Six weights and four inputs: query, key and value round one input with one scale, which is shared.
    assert counts["QuantizeLinear"] == counts["DequantizeLinear"] == 10
    producers = {output: node for node in model.graph.node for output in node.output}
    scales = [weights[node.input[1]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    learned = [array for name, array in stored.items() if name.endswith("_scale")]
    assert {array.tobytes() for array in scales} == {array.tobytes() for array in learned}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and ".layer." in node.name]
    fed = [node for node in products if producers[node.input[1]].op_type == "DequantizeLinear"]
    assert len(fed) == 6


def test_fake_quantised_graph_agrees_closely(traced_case):
    for report in traced_case("bert-qat").parity:
        assert all(output.cosine > 0.9999 for output in report.outputs)


def test_checkpoint_gives_the_same_model_again(case_model):
    model = load_model_of(case_model("bert-pruned"), "text-classification")
    assert model.bert.encoder.layer[0].attention.self.num_attention_heads == 3
    assert model.bert.encoder.layer[1].attention.self.num_attention_heads == 1
    assert tuple(model.bert.encoder.layer[1].attention.self.query.weight.shape) == (8, 32)


def load_model_of(directory, task):
    return load_model(open_source(directory).path, task)


@pytest.mark.parametrize("text", ["{", "{}", '{"schema": 9}', '{"schema": 1, "linears": {"nowhere": {}}, "heads": {}}'])
def test_broken_structure_is_refused(text, case_model, tmp_path):
    source = open_source(case_model("bert-pruned")).path
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "stepdown.json").write_text(text)
    with pytest.raises(UnsupportedModel, match="structure cannot be used"):
        load_model_of(str(tmp_path), "text-classification")


def test_structure_that_does_not_fit_the_weights_is_refused(case_model, tmp_path):
    source = open_source(case_model("bert-pruned")).path
    for name in ("config.json", "model.safetensors", "stepdown.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    path = tmp_path / "stepdown.json"
    path.write_text(path.read_text().replace('"outputs": 40', '"outputs": 41'))
    with pytest.raises(UnsupportedModel, match="weights do not fit") as caught:
        trace(open_source(str(tmp_path)), tmp_path)
    assert "model.safetensors" in str(caught.value)
