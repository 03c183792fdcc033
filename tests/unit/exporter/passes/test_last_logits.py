"""A decoder answers for its last token alone, and for all where it is asked to: the same logits, to the bit."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporter.passes.attention import FIRST_OPSET
from exporter.passes.cached_attention import fuse_attention
from exporter.passes.last_logits import keep_last_logits
from exporter.passes.prepare import name_nodes, prepare
from exporter.passes.separate_norm import separate_norm
from runtimes.generation.cache_spec import ALL_LOGITS
from runtimes.generation.feeds import carry_cache, make_step
from runtimes.ort import OnnxRuntime, describe_onnx
from tests.unit.exporter.passes.decoders import CACHE, VOCABULARY, draw_tokens, make_decoder, open_session

ALL = {ALL_LOGITS: np.ones(1, np.int64)}


@pytest.fixture
def before():
    """A decoder with ONNX Runtime's attention."""
    model = make_decoder()
    fuse_attention(model)
    prepare(model, oldest_opset=FIRST_OPSET)
    # Or ONNX Runtime makes one operator of it and the sum before, which the rows now come between.
    separate_norm(model)
    return model


@pytest.fixture
def after(before):
    edited = ir.from_proto(ir.to_proto(before))
    assert keep_last_logits(edited)
    name_nodes(edited)
    return edited


def run(model, feeds):
    session = open_session(model)
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def test_by_default_the_last_token_is_answered_for(before, after):
    ids, mask = draw_tokens()
    feeds = make_step(ids, mask, CACHE.empty(len(ids)))
    expected, got = run(before, feeds), run(after, feeds)
    assert got["logits"].shape == (len(ids), 1, VOCABULARY)
    np.testing.assert_array_equal(got["logits"], expected["logits"][:, -1:])
    for _, name in CACHE.names():
        np.testing.assert_array_equal(got[name], expected[name])


def test_all_are_answered_for_where_it_is_asked_to(before, after):
    ids, mask = draw_tokens()
    feeds = make_step(ids, mask, CACHE.empty(len(ids)))
    np.testing.assert_array_equal(run(after, {**feeds, **ALL})["logits"], run(before, feeds)["logits"])


def test_padding_behind_a_row_is_no_last_token(before, after):
    ids, mask = draw_tokens()
    mask[1], mask[2, -3:] = 1, 0
    mask[1, 5:] = 0
    feeds = make_step(ids, mask, CACHE.empty(len(ids)))
    expected = run(before, feeds)["logits"][np.arange(3), [ids.shape[1] - 1, 4, ids.shape[1] - 4]]
    np.testing.assert_array_equal(run(after, feeds)["logits"][:, 0], expected)


@pytest.mark.parametrize("new", [1, 3])
def test_behind_a_cache_only_new_tokens_count(before, after, new):
    ids, mask = (one[:1] for one in draw_tokens())
    past = carry_cache(CACHE, run(before, make_step(ids[:, :-new], mask[:, :-new], CACHE.empty(1))))
    feeds = make_step(ids[:, -new:], mask, past)
    expected = run(before, feeds)["logits"]
    np.testing.assert_array_equal(run(after, feeds)["logits"], expected[:, -1:])
    np.testing.assert_array_equal(run(after, {**feeds, **ALL})["logits"], expected)


def test_the_norm_reads_no_more_rows_than_the_head(after):
    (rows,) = [node for node in after.graph if node.op_type == "GatherND"]
    assert [use.node.op_type for use in rows.outputs[0].uses()] == ["LayerNormalization"]


def test_what_is_declared_is_what_comes_by_default(after, tmp_path):
    ir.save(after, tmp_path / "model.onnx")
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=False)
    artifact = describe_onnx(tmp_path / "model.onnx")
    assert next(spec.shape for spec in artifact.outputs if spec.name == "logits") == ("batch", 1, VOCABULARY)
    assert ALL_LOGITS not in {spec.name for spec in artifact.inputs}


def test_our_session_answers_for_all_and_is_timed_as_a_loop_calls_it(before, after, tmp_path):
    ids, mask = draw_tokens()
    feeds = make_step(ids, mask, CACHE.empty(len(ids)))
    ir.save(after, tmp_path / "model.onnx")
    session = OnnxRuntime().open(describe_onnx(tmp_path / "model.onnx"))
    np.testing.assert_array_equal(session.run(feeds)["logits"], run(before, feeds)["logits"])
    assert session.prepare(feeds)()[0].shape == (len(ids), 1, VOCABULARY)
    session.close()


def test_logits_that_are_bent_behind_the_head_are_those_of_the_last_token_too(before):
    """A soft cap, as Gemma has it."""
    (logits,) = [one for one in before.graph.outputs if one.name == "logits"]
    cap = ir.Value(name="cap", const_value=ir.tensor(np.array(30, np.float32)), type=logits.type, shape=ir.Shape(()))
    before.graph.register_initializer(cap)
    logits.name = "plain"
    divided = ir.node("Div", [logits, cap], name="divide")
    bent = ir.node("Tanh", [divided.outputs[0]], name="bend")
    product = ir.node("Mul", [bent.outputs[0], cap], name="cap_it")
    product.outputs[0].name, product.outputs[0].type, product.outputs[0].shape = "logits", logits.type, logits.shape
    before.graph.extend([divided, bent, product])
    before.graph.outputs[0] = product.outputs[0]
    ids, mask = draw_tokens()
    feeds = make_step(ids, mask, CACHE.empty(len(ids)))
    expected = run(before, feeds)["logits"]
    assert keep_last_logits(before)
    name_nodes(before)
    np.testing.assert_array_equal(run(before, feeds)["logits"], expected[:, -1:])


def test_rounding_before_the_head_stays_with_it(before):
    """A linear that was trained with its rounding."""
    (head,) = [node for node in before.graph if node.name == "head"]
    scale = ir.Value(name="scale", const_value=ir.tensor(np.array(0.05, np.float32)))
    before.graph.register_initializer(scale)
    rounded = ir.node("QuantizeLinear", [head.inputs[0], scale], {"output_dtype": ir.DataType.INT8}, name="round")
    undone = ir.node("DequantizeLinear", [rounded.outputs[0], scale], name="undo")
    before.graph.insert_before(head, [rounded, undone])
    head.replace_input_with(0, undone.outputs[0])
    ids, mask = draw_tokens()
    feeds = make_step(ids, mask, CACHE.empty(len(ids)))
    expected = run(before, feeds)["logits"]
    assert keep_last_logits(before)
    name_nodes(before)
    (rows,) = [node for node in before.graph if node.op_type == "GatherND"]
    assert [use.node.op_type for use in rows.outputs[0].uses()] == ["LayerNormalization"]
    np.testing.assert_array_equal(run(before, feeds)["logits"], expected[:, -1:])


def test_a_graph_without_a_head_is_left_alone(before):
    (logits,) = [one for one in before.graph.outputs if one.name == "logits"]
    logits.name = "plain"
    chosen = ir.node("Softmax", [logits], {"axis": -1}, name="choose")
    chosen.outputs[0].name, chosen.outputs[0].type = "logits", logits.type
    before.graph.append(chosen)
    before.graph.outputs[0] = chosen.outputs[0]
    count = len(before.graph)
    assert not keep_last_logits(before)
    assert len(before.graph) == count
    assert ALL_LOGITS not in before.graph.initializers
