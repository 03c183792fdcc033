"""A cache of int8: what is kept, that it changes next to nothing, and why there is none of float16."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from calibration.cache_peaks import measure_peaks
from exporter.passes.cached_attention import fuse_attention
from exporter.passes.narrow_cache import narrow_cache
from runtimes.errors import DataError, UnsupportedModel
from runtimes.generation.cache_spec import find_cache
from runtimes.generation.feeds import carry_cache, make_step
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from tests.unit.exporter.passes.decoders import CACHE, draw_tokens, make_decoder, open_session


@pytest.fixture
def peaks(tmp_path):
    ids, mask = draw_tokens(rows=16, length=32, seed=1)
    ir.save(make_decoder(), tmp_path / "float.onnx")
    return measure_peaks(tmp_path / "float.onnx", [make_step(ids, mask, CACHE.empty(len(ids)))])


def make(peaks):
    model = make_decoder()
    fuse_attention(model)
    assert narrow_cache(model, peaks) == 1
    return model


def generate(model, cache, ids, mask, at_once):
    """Return the logits, the first ``at_once`` tokens given as a prompt."""
    session, past, found = open_session(model), cache.empty(len(ids)), []
    names = [one.name for one in session.get_outputs()]
    start = 0
    for end in (at_once, *range(at_once + 1, ids.shape[1] + 1)):
        outputs = dict(zip(names, session.run(names, make_step(ids[:, start:end], mask[:, :end], past)), strict=True))
        past, start = carry_cache(cache, outputs), end
        found.append(outputs["logits"])
    return np.concatenate(found, axis=1) * mask[..., None]


def test_it_computes_nearly_the_same(tmp_path, peaks):
    model = make(peaks)
    ir.save(model, tmp_path / "model.onnx")
    cache = find_cache(describe_onnx(tmp_path / "model.onnx").inputs)
    assert cache.dtype == "int8"
    assert 4 * cache.bytes_for(1, 100) == CACHE.bytes_for(1, 100)
    tokens = draw_tokens()
    expected = generate(make_decoder(), CACHE, *tokens, at_once=12)
    got = generate(model, cache, *tokens, at_once=5)
    assert np.linalg.norm(got - expected) < 0.05 * np.linalg.norm(expected)
    whole = generate(model, cache, *tokens, at_once=12)
    # Either way it attends to what is rounded; products of other shapes add up in another order.
    np.testing.assert_allclose(got, whole, atol=1e-3)


def test_int8_keeps_every_channel_to_half_a_step(peaks):
    ids, mask = draw_tokens(rows=16, length=32, seed=1)
    feeds = make_step(ids, mask, CACHE.empty(len(ids)))
    exact = open_session(make_decoder()).run(["present.0.key"], feeds)[0]
    narrow = {name: one.astype(np.int8) if name in peaks else one for name, one in feeds.items()}
    kept = open_session(make(peaks)).run(["present.0.key"], narrow)[0]
    assert kept.dtype == np.int8
    steps = peaks["past_key_values.0.key"][None, :, None] / 127
    counts = mask[:, None, :, None] != 0
    assert (np.abs(kept * steps - exact) * counts <= steps * 0.501).all()


def test_attention_that_is_not_fused_is_refused():
    with pytest.raises(UnsupportedModel, match="narrower cache"):
        narrow_cache(make_decoder(), {})


def test_attention_whose_cache_is_made_inside_is_refused(peaks):
    model = make_decoder()
    fuse_attention(model)
    node = next(node for node in model.graph if node.op_type == "GroupQueryAttention")
    copied = ir.node("Identity", [node.inputs[3]])
    model.graph.insert_before(node, copied)
    node.replace_input_with(3, copied.outputs[0])
    with pytest.raises(UnsupportedModel, match="no input of the model"):
        narrow_cache(model, peaks)


def test_peaks_of_every_layer_are_needed():
    model = make_decoder()
    fuse_attention(model)
    with pytest.raises(DataError, match=r"past_key_values\.0\.key"):
        narrow_cache(model, {})


def test_a_cache_of_float16_would_be_widened_for_every_token(tmp_path):
    """Why `export` offers none: a newer ONNX Runtime that keeps one as it is fails this test."""
    model = make_decoder()
    fuse_attention(model)
    node = next(node for node in model.graph if node.op_type == "GroupQueryAttention")
    for one in (*node.inputs[3:5], *node.outputs[1:3]):
        one.type = ir.TensorType(ir.DataType.FLOAT16)
    ir.save(model, tmp_path / "model.onnx")
    optimized = tmp_path / "optimized.onnx"
    OnnxRuntime(OrtOptions(optimized=optimized)).open(describe_onnx(tmp_path / "model.onnx")).close()
    cast = [one for one in ir.load(optimized).graph if one.op_type == "Cast"]
    sides = Counter("past" if one.inputs[0].name.startswith("past") else "present" for one in cast
                    if "key" in one.outputs[0].name or "value" in one.outputs[0].name)  # fmt: skip
    assert sides == {"past": 2, "present": 2}
