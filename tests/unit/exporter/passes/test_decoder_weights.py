"""Decoders whose weights are in blocks: what is stored, what it computes, and that the cache changes nothing."""

import numpy as np
import onnx_ir as ir
import pytest

from calibration.linears import find_linears
from calibration.lower.onnxruntime.per_token import lower_per_token
from calibration.weights.blocks import BlockFormat
from calibration.weights.inputs import collect_inputs
from calibration.weights.plan import FLOAT_ARITHMETIC, WeightPlan
from exporter.inspecting.blockwise_weights import unpack_weight
from exporter.passes.cached_attention import fuse_attention
from exporter.passes.decoder_weights import list_inputs, quantise_decoder, smooth_decoder
from runtimes.errors import DataError, UsageError
from runtimes.generation.feeds import make_step
from tests.unit.exporter.passes.decoders import (
    CACHE,
    HIDDEN,
    LINEARS,
    VOCABULARY,
    draw_tokens,
    make_decoder,
    open_session,
    run_each,
    run_whole,
)

EIGHT, FOUR, TWO = (BlockFormat(bits=bits) for bits in (8, 4, 2))
INPUTS = ("normed", "mixed", "second", "inner", "last")


@pytest.fixture(scope="module")
def statistics(tmp_path_factory):
    """Of :func:`make_decoder`, over the tokens that are judged by as well."""
    directory = tmp_path_factory.mktemp("statistics")
    model = make_decoder()
    ir.save(model, directory / "model.onnx")
    ids, mask = draw_tokens(rows=16, length=32, seed=1)
    feeds = make_step(ids, mask, CACHE.empty(len(ids)))
    return collect_inputs(directory / "model.onnx", lambda: [feeds], list_inputs(model), directory)


def kinds(model):
    return [node.op_type for node in model.graph]


def measure(model):
    """Return how far the logits are from those in float, relative."""
    tokens = draw_tokens(rows=8, length=24, seed=2)
    expected = run_whole(make_decoder(), *tokens)
    return np.linalg.norm(run_whole(model, *tokens) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(("layout", "most"), [(EIGHT, 0.05), (FOUR, 0.35), (TWO, 1.2)], ids=["8", "4", "2"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
def test_it_computes_as_near_as_its_bits(statistics, method, symmetric, layout, most):
    model = make_decoder()
    layout = BlockFormat(bits=layout.bits, symmetric=symmetric)
    found = quantise_decoder(model, WeightPlan(linears=layout, tables=EIGHT, method=method), statistics)
    assert [one.node for one in found] == [*LINEARS, "head"]
    assert 0 < measure(model) < most
    assert max(one.error for one in found) < most


def test_linears_without_a_form_stay_in_float_and_so_does_a_head_that_is_named():
    model = make_decoder(tied=False)
    found = quantise_decoder(model, WeightPlan(linears=None, tables=EIGHT, others={"down": FOUR}))
    assert [one.node for one in found] == ["down", "head", "embed"]
    assert kinds(model).count("MatMul") == len(LINEARS) - 1
    model = make_decoder(tied=False)
    assert [
        one.node for one in quantise_decoder(model, WeightPlan(linears=None, tables=EIGHT, others={"head": None}))
    ] == ["embed"]
    assert kinds(model).count("MatMul") == len(LINEARS) + 1


@pytest.mark.parametrize("fused", [False, True])
def test_smoothed_it_computes_what_it_did_and_rounds_better(statistics, fused):
    def lower(*, smoothed):
        model = make_decoder()
        if fused:
            fuse_attention(model)
        if smoothed:
            smooth_decoder(model, statistics, ())
        return model

    tokens = draw_tokens(rows=8, length=24, seed=2)
    np.testing.assert_allclose(run_whole(lower(smoothed=True), *tokens), run_whole(make_decoder(), *tokens), atol=5e-4)
    errors = []
    for smoothed in (False, True):
        model = lower(smoothed=smoothed)
        quantise_decoder(model, WeightPlan(linears=None, tables=None))
        lower_per_token(model, [one for one in find_linears(model) if one.node != "head"], weight_bits=8)
        errors.append(measure(model))
    assert errors[1] < 0.8 * errors[0]


def test_it_tells_what_rounding_still_changes_but_of_the_head_and_what_is_left(statistics):
    model = make_decoder()
    errors = smooth_decoder(model, statistics, ("gate",))
    assert sorted(errors) == sorted(set(LINEARS) - {"gate", "up"})
    assert len({errors[name] for name in ("query", "key", "value")}) == 1
    assert all(0 < error < 1e-2 for error in errors.values())


@pytest.mark.parametrize("bits", [4, 2])
def test_looking_at_inputs_helps(statistics, bits):
    layout = BlockFormat(bits=bits, size=64)
    errors = {}
    for method in ("rtn", "gptq", "awq"):
        found = quantise_decoder(make_decoder(), WeightPlan(linears=layout, tables=None, method=method), statistics)
        errors[method] = np.mean([one.error for one in found])
    assert errors["gptq"] < 0.85 * errors["rtn"]
    assert errors["awq"] < 0.95 * errors["rtn"]


@pytest.mark.parametrize("changed", [{"ordered": False}, {"damping": 0.5}], ids=str)
def test_the_order_and_the_damping_are_those_of_the_plan(statistics, changed):
    def store(**options):
        model = make_decoder()
        quantise_decoder(model, WeightPlan(linears=FOUR, tables=None, method="gptq", **options), statistics)
        return next(unpack_weight(node) for node in model.graph if node.name == "down_w4")

    assert (store() == store()).all()
    assert (store(**changed) != store()).any()


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_cache_changes_nothing(statistics, method, fused):
    model = make_decoder()
    if fused:
        fuse_attention(model)
    plan = WeightPlan(linears=FOUR, tables=EIGHT, method=method, accuracy=FLOAT_ARITHMETIC)
    quantise_decoder(model, plan, statistics)
    tokens = draw_tokens()
    np.testing.assert_allclose(run_each(model, *tokens), run_whole(model, *tokens), atol=1e-3)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_tied_table_is_stored_once(bits, symmetric):
    model = make_decoder()
    quantise_decoder(model, WeightPlan(linears=FOUR, tables=BlockFormat(bits=bits, symmetric=symmetric)))
    nodes = {node.name: node for node in model.graph}
    head, look_up = nodes["head_w" + str(bits)], nodes["embed_rows"]
    packed = head.inputs[1]
    assert look_up.inputs[0].producer().inputs[0] is packed
    assert look_up.inputs[2:] == head.inputs[2:] == head.inputs[2 : 3 if symmetric else 4]
    assert packed.const_value.nbytes == VOCABULARY * HIDDEN * bits // 8
    assert not [one for one in model.graph.initializers.values() if one.const_value.nbytes == VOCABULARY * HIDDEN * 4]


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_looked_up_as_they_are_stored(tied, bits):
    model = make_decoder(tied=tied)
    table = model.graph.initializers["table"].const_value.numpy()
    quantise_decoder(model, WeightPlan(linears=EIGHT, tables=BlockFormat(bits=bits, symmetric=False)))
    model.graph.outputs.append(next(node for node in model.graph if node.name == "embed_rows").outputs[0])
    ids, mask = draw_tokens()
    (rows,) = open_session(model).run(["embedded"], make_step(ids, mask, CACHE.empty(len(ids))))
    np.testing.assert_allclose(rows, table[ids], atol=1.1 * 6 / (2**bits - 1))
    assert ("head_w8" in [node.name for node in model.graph]) == (bits == 8)


def test_an_untied_head_and_its_table_have_the_form_of_tables():
    model = make_decoder(tied=False)
    found = quantise_decoder(model, WeightPlan(linears=FOUR, tables=EIGHT))
    assert {one.node: one.format.bits for one in found} == {**dict.fromkeys(LINEARS, 4), "head": 8, "embed": 8}


def test_tables_may_stay_in_float():
    model = make_decoder()
    found = quantise_decoder(model, WeightPlan(linears=FOUR, tables=None))
    assert [one.node for one in found] == [*LINEARS]
    assert "Transpose" in kinds(model)
    assert model.graph.initializers["table"].dtype == ir.DataType.FLOAT
    assert len([1 for value in model.graph.initializers.values() if value.const_value.size >= VOCABULARY * HIDDEN]) == 1


def test_an_untied_head_in_float_stays_too():
    model = make_decoder(tied=False)
    quantise_decoder(model, WeightPlan(linears=FOUR, tables=None))
    assert kinds(model).count("MatMul") == 1
    assert kinds(model).count("MatMulNBits") == len(LINEARS)


def test_a_layer_may_have_a_form_of_its_own_or_stay_in_float(statistics):
    model = make_decoder()
    plan = WeightPlan(linears=FOUR, tables=EIGHT, others={"down": EIGHT, "gate": None}, method="awq")
    found = {one.node: one.format.bits for one in quantise_decoder(model, plan, statistics)}
    assert found == {"query": 4, "key": 4, "value": 4, "output": 4, "up": 4, "down": 8, "head": 8}
    assert kinds(model).count("MatMul") == 1
    assert measure(model) < 0.35


def test_a_width_that_fills_no_block_is_looked_up_whole():
    model = make_decoder(hidden=40, bias=False)
    tokens = draw_tokens()
    expected = run_whole(model, *tokens)
    quantise_decoder(model, WeightPlan(linears=EIGHT, tables=EIGHT))
    assert "Slice" in kinds(model)
    assert np.linalg.norm(run_whole(model, *tokens) - expected) < 0.03 * np.linalg.norm(expected)


def test_functions_survive_and_biases_are_added_by_the_product():
    model = make_decoder()
    quantise_decoder(model, WeightPlan(linears=FOUR, tables=EIGHT))
    assert len(model.functions) == 1
    assert kinds(model).count("CachedAttention") == 1
    assert kinds(model).count("Add") == 2
    biased = [node for node in model.graph if node.op_type == "MatMulNBits" and len(node.inputs) > 5]
    assert len(biased) == 5


def test_the_error_is_that_of_the_outputs():
    model = make_decoder(bias=False)
    weight = model.graph.initializers["down_w"].const_value.numpy().T
    found = quantise_decoder(model, WeightPlan(linears=FOUR, tables=None))
    rounded = unpack_weight(next(node for node in model.graph if node.name == "down_w4"))
    expected = np.linalg.norm(rounded - weight) / np.linalg.norm(weight)
    assert next(one.error for one in found if one.node == "down") == pytest.approx(expected, rel=1e-4)


def test_inputs_are_listed_once_with_that_of_a_tied_head():
    assert list_inputs(make_decoder()) == INPUTS
    assert list_inputs(make_decoder(tied=False)) == INPUTS


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_method_without_its_statistics_is_refused(method):
    model = make_decoder()
    before = kinds(model)
    with pytest.raises(UsageError, match="looks at what the linears are fed"):
        quantise_decoder(model, WeightPlan(linears=FOUR, tables=None, method=method))
    assert kinds(model) == before


def test_statistics_of_another_model_are_refused(statistics):
    model = make_decoder()
    next(node for node in model.graph if node.name == "normed").outputs[0].name = "renamed"
    with pytest.raises(DataError, match="renamed"):
        quantise_decoder(model, WeightPlan(linears=FOUR, tables=None, method="gptq"), statistics)
