"""Decoders that optimum-onnx exported: its names of axes, and its merged form with a branch for either use."""

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx import helper

from exporter.source import GENERATION, open_source
from exporter.tracing.trace import trace
from runtimes.errors import UnsupportedModel
from runtimes.generation.cache_spec import LOGITS, find_cache
from runtimes.generation.feeds import make_step
from runtimes.ort import OnnxRuntime
from tests.corpus.decoders import DECODERS, build
from tests.corpus.optimum_forms import merge, name_axes


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """(what we trace of a Llama, its graph as optimum-onnx names it, functions inlined)."""
    directory, out = (tmp_path_factory.mktemp(name) for name in ("llama", "traced"))
    build(DECODERS["llama"], directory)
    traced = trace(open_source(str(directory)), out)
    return traced, name_axes(onnx.inliner.inline_local_functions(onnx.load(traced.artifact.path)))


def save(model, folder):
    onnx.save(model, folder / "model.onnx")
    return open_source(str(folder / "model.onnx"))


def require_same(ours, brought):
    assert (brought.task, brought.cache) == (GENERATION, ours.cache)
    assert {report.verdict for report in brought.parity} == {"pass"}
    assert len(brought.parity) == 3
    sessions = [OnnxRuntime().open(traced.artifact) for traced in (ours, brought)]
    assert {spec.name: spec.shape for spec in sessions[0].inputs} == {
        spec.name: spec.shape for spec in sessions[1].inputs
    }
    feeds = make_step(np.arange(10).reshape(2, 5), np.ones((2, 5), np.int64), ours.cache.empty(2))
    first, second = (session.run(feeds) for session in sessions)
    np.testing.assert_allclose(second[LOGITS], first[LOGITS], atol=1e-5)


def test_a_decoder_with_a_cache(ours, tmp_path):
    traced, model = ours
    (tmp_path / "out").mkdir()
    require_same(traced, trace(save(model, tmp_path), tmp_path / "out"))


def test_a_merged_decoder_becomes_one_graph(ours, tmp_path):
    traced, model = ours
    (tmp_path / "out").mkdir()
    brought = trace(save(merge(model), tmp_path), tmp_path / "out")
    require_same(traced, brought)
    assert all(node.op_type != "If" for node in onnx.load(brought.artifact.path).graph.node)
    assert find_cache(brought.artifact.inputs) == traced.cache


def test_positions_that_it_does_not_take_are_fed_all_the_same(ours, tmp_path):
    """As OPT, whose positions come from the mask."""
    traced, model = ours
    (tmp_path / "out").mkdir()
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    (positions,) = [value for value in changed.graph.input if value.name == "position_ids"]
    changed.graph.input.remove(positions)
    nodes = [
        helper.make_node("CumSum", ["attention_mask", "axis"], ["counted"], name="count"),
        helper.make_node("Sub", ["counted", "one"], ["placed"], name="place"),
        helper.make_node("Shape", ["input_ids"], ["new"], name="size", start=1, end=2),
        helper.make_node("Neg", ["new"], ["first"], name="negate"),
        helper.make_node("Slice", ["placed", "first", "end", "last"], ["position_ids"], name="cut"),
    ]
    for number, node in enumerate(nodes):
        changed.graph.node.insert(number, node)
    constants = {"axis": 1, "one": 1, "end": [2**31], "last": [1]}
    changed.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()
    )
    require_same(traced, trace(save(changed, tmp_path), tmp_path / "out"))


@pytest.mark.parametrize("missing", ["attention_mask", "present.1.value"])
def test_what_lacks_a_part_is_refused(ours, tmp_path, missing):
    model = onnx.ModelProto.FromString(ours[1].SerializeToString())
    for values in (model.graph.input, model.graph.output):
        for value in [value for value in values if value.name == missing]:
            values.remove(value)
            if values is model.graph.input:
                model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 1), np.int64), missing))
    with pytest.raises(UnsupportedModel, match=f"lacks {missing}"):
        trace(save(model, tmp_path), tmp_path)
