"""Caches of float16 and int8: what is kept, and that it changes next to nothing."""

import numpy as np
import onnx_ir as ir
import pytest

from calibration.cache_peaks import measure_peaks
from exporter.passes.cached_attention import fuse_attention
from exporter.passes.narrow_cache import narrow_cache
from runtimes.errors import DataError, UnsupportedModel
from runtimes.generation.cache_spec import find_cache
from runtimes.generation.feeds import carry_cache, make_step
from runtimes.ort import describe_onnx
from tests.unit.exporter.passes.decoders import CACHE, draw_tokens, make_decoder, open_session


@pytest.fixture
def peaks(tmp_path):
    ids, mask = draw_tokens(rows=16, length=32, seed=1)
    ir.save(make_decoder(), tmp_path / "float.onnx")
    return measure_peaks(tmp_path / "float.onnx", [make_step(ids, mask, CACHE.empty(len(ids)))])


def make(kind, peaks):
    model = make_decoder()
    fuse_attention(model)
    assert narrow_cache(model, kind, peaks) == 1
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


@pytest.mark.parametrize(("kind", "off"), [("float16", 2e-3), ("int8", 0.05)])
def test_it_computes_nearly_the_same(tmp_path, peaks, kind, off):
    model = make(kind, peaks)
    ir.save(model, tmp_path / "model.onnx")
    cache = find_cache(describe_onnx(tmp_path / "model.onnx").inputs)
    assert cache.dtype == kind
    assert cache.bytes_for(1, 100) < CACHE.bytes_for(1, 100)
    tokens = draw_tokens()
    expected = generate(make_decoder(), CACHE, *tokens, at_once=12)
    got = generate(model, cache, *tokens, at_once=5)
    assert np.linalg.norm(got - expected) < off * np.linalg.norm(expected)
    whole = generate(model, cache, *tokens, at_once=12)
    # Attention of either form attends to what is rounded; products of other shapes add up in another order.
    np.testing.assert_allclose(got, whole, atol=0.5 if kind == "float16" else 1e-3)


def test_int8_keeps_every_channel_to_half_a_step(peaks):
    ids, mask = draw_tokens(rows=16, length=32, seed=1)
    feeds = make_step(ids, mask, CACHE.empty(len(ids)))
    exact = open_session(make_decoder()).run(["present.0.key"], feeds)[0]
    narrow = {name: one.astype(np.int8) if name in peaks else one for name, one in feeds.items()}
    kept = open_session(make("int8", peaks)).run(["present.0.key"], narrow)[0]
    assert kept.dtype == np.int8
    steps = peaks["past_key_values.0.key"][None, :, None] / 127
    counts = mask[:, None, :, None] != 0
    assert (np.abs(kept * steps - exact) * counts <= steps * 0.501).all()


def test_attention_that_is_not_fused_is_refused():
    with pytest.raises(UnsupportedModel, match="narrower cache"):
        narrow_cache(make_decoder(), "float16")


def test_attention_whose_cache_is_made_inside_is_refused():
    model = make_decoder()
    fuse_attention(model)
    node = next(node for node in model.graph if node.op_type == "GroupQueryAttention")
    copied = ir.node("Identity", [node.inputs[3]])
    model.graph.insert_before(node, copied)
    node.replace_input_with(3, copied.outputs[0])
    with pytest.raises(UnsupportedModel, match="no input of the model"):
        narrow_cache(model, "float16")


@pytest.mark.parametrize("given", [None, {}])
def test_int8_needs_peaks(given):
    model = make_decoder()
    fuse_attention(model)
    with pytest.raises(DataError, match=r"past_key_values\.0\.key"):
        narrow_cache(model, "int8", given)
