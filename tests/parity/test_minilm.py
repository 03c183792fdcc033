"""The real model: all-MiniLM-L6-v2 as ONNX answers like PyTorch and keeps a clean graph."""

from collections import Counter

import onnx
import pytest

from exporter.source import open_source
from exporter.tracing.trace import trace


@pytest.fixture(scope="module")
def minilm(minilm_dir, tmp_path_factory):
    return trace(open_source(str(minilm_dir)), tmp_path_factory.mktemp("minilm"))


def test_minilm_agrees_with_pytorch_from_1x1_to_512(minilm):
    shapes = {report.outputs[0].shape for report in minilm.parity}
    assert {(1, 1, 384), (1, 7, 384), (8, 16, 384), (1, 512, 384)} <= shapes
    for report in minilm.parity:
        assert report.verdict == "pass"
        # Far inside the tolerance: float32 in another order.
        assert max(output.max_abs for output in report.outputs) < 5e-5


def test_minilm_is_described(minilm):
    assert [spec.name for spec in minilm.artifact.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [spec.name for spec in minilm.artifact.outputs] == ["last_hidden_state", "pooler_output"]
    assert (minilm.task, minilm.max_length, minilm.findings) == ("feature-extraction", 512, ())
    assert minilm.artifact.size_bytes() < 91_000_000


def test_minilm_graph_has_six_plain_layers(minilm):
    counts = Counter(node.op_type for node in onnx.load(minilm.artifact.path).graph.node)
    # Six linears and two attention products in each layer; one mask for all of them.
    assert (counts["MatMul"], counts["Softmax"], counts["LayerNormalization"], counts["Where"]) == (48, 6, 13, 1)
    assert sum(counts.values()) < 210
