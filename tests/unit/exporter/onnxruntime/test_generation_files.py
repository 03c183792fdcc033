"""What lies beside a decoder's graph: a buffer is shared only where the kernel writes into it."""

import json

import onnx_ir as ir
import pytest

from exporter.onnxruntime.generation_files import write_generation_files
from runtimes.errors import UnsupportedModel
from runtimes.generation.cache_spec import CacheSpec

CACHE = CacheSpec(layers=2, kv_heads=1, head_dim=8)


def write_graph(path, operator):
    node = ir.node(operator, [], num_outputs=1, domain="com.microsoft" if operator != "Relu" else "")
    node.outputs[0].name = "present"
    graph = ir.Graph([], node.outputs, nodes=[node], opset_imports={"": 20, "com.microsoft": 1}, name="step")
    ir.save(ir.Model(graph, ir_version=10), path)


def write_source(directory, **config):
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"vocab_size": 50, "max_position_embeddings": 64, **config}))
    (directory / "tokenizer.json").write_text("{}")
    (directory / "notes.txt").write_text("not of the tokenizer")
    return directory


@pytest.mark.parametrize(("operator", "shares"), [("GroupQueryAttention", True), ("Relu", False)])
def test_a_cache_is_one_buffer_where_the_kernel_writes_into_it(operator, shares, tmp_path):
    write_graph(tmp_path / "model.onnx", operator)
    target = tmp_path / "target"
    target.mkdir()
    write_generation_files(tmp_path / "model.onnx", write_source(tmp_path / "source"), target, CACHE, max_length=32)
    config = json.loads((target / "genai_config.json").read_text())
    assert config["search"]["past_present_share_buffer"] is shares
    assert config["model"]["context_length"] == 32
    assert sorted(path.name for path in target.iterdir()) == ["genai_config.json", "tokenizer.json"]


def test_a_configuration_without_a_vocabulary_is_refused(tmp_path):
    write_graph(tmp_path / "model.onnx", "Relu")
    source = write_source(tmp_path / "source", vocab_size=None)
    with pytest.raises(UnsupportedModel, match="vocabulary"):
        write_generation_files(tmp_path / "model.onnx", source, tmp_path, CACHE, max_length=None)
