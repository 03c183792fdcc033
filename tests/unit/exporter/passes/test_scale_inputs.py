"""The factors of AWQ: they leave what the float graph computes, and go where they can."""

import numpy as np
import onnx_ir as ir
import pytest

from calibration.linears import find_linears
from calibration.weights.awq import find_scales
from calibration.weights.blocks import BlockFormat
from calibration.weights.inputs import collect_inputs
from exporter.passes.cached_attention import fuse_attention
from exporter.passes.decoder_weights import list_inputs
from exporter.passes.scale_inputs import scale_inputs
from runtimes.generation.feeds import make_step
from tests.unit.exporter.passes.decoders import CACHE, HEADS, SHARED, WIDTH, draw_tokens, make_decoder, run_whole

LAYOUT = BlockFormat(bits=2)


def scale(model, directory):
    """Return the factors of every input but the head's."""
    ir.save(model, directory / "model.onnx")
    ids, mask = draw_tokens(rows=16, length=32, seed=1)
    feeds = make_step(ids, mask, CACHE.empty(len(ids)))
    statistics = collect_inputs(directory / "model.onnx", lambda: [feeds], list_inputs(model), directory)
    groups = {}
    for linear in find_linears(model):
        groups.setdefault(linear.activation, []).append(linear)

    def find(name, rows, channels):
        return find_scales([(array, LAYOUT) for _, array in rows], statistics.load(name), channels)

    return scale_inputs(model, groups, find)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("fused", [False, True])
def test_the_float_graph_computes_what_it_did(tmp_path, fused, bias):
    model = make_decoder(bias=bias)
    expected = run_whole(model, *draw_tokens())
    if fused:
        fuse_attention(model)
    found = scale(model, tmp_path)
    assert set(found) >= {"normed", "second"}
    np.testing.assert_allclose(run_whole(model, *draw_tokens()), expected, atol=2e-4)


def test_heads_that_share_values_share_factors(tmp_path):
    scales = scale(make_decoder(seed=3), tmp_path)["mixed"].reshape(SHARED, HEADS // SHARED, WIDTH)
    np.testing.assert_array_equal(scales[:, 0], scales[:, 1])
    assert len(np.unique(scales)) > 1


def test_the_half_that_is_not_activated_takes_the_factors_of_what_both_make(tmp_path):
    model = make_decoder()
    before = {name: model.graph.initializers[f"{name}_w"].const_value.numpy() for name in ("gate", "up")}
    found = scale(model, tmp_path)
    after = {name: model.graph.initializers[f"{name}_w"].const_value.numpy() for name in ("gate", "up")}
    second = found["second"][:, None]
    np.testing.assert_allclose(after["gate"], before["gate"] * second, rtol=1e-6)
    np.testing.assert_allclose(after["up"], before["up"] * second / found["inner"], rtol=1e-5)


@pytest.mark.parametrize("what", ["read elsewhere", "an output", "behind an activation", "weight shared"])
def test_an_input_that_something_else_sees_keeps_its_scale(tmp_path, what):
    model = make_decoder()
    nodes = {node.name: node for node in model.graph}
    second = nodes["second"].outputs[0]
    match what:
        case "read elsewhere":
            behind = next(node for node in model.graph if node.outputs[0].name == "behind")
            behind.replace_input_with(0, second)
        case "an output":
            model.graph.outputs.append(second)
        case "behind an activation":
            tanh = ir.node("Tanh", [second])
            tanh.outputs[0].name, tanh.outputs[0].type, tanh.outputs[0].shape = "bent", second.type, second.shape
            model.graph.insert_after(nodes["second"], tanh)
            for name in ("gate", "up"):
                nodes[name].replace_input_with(0, tanh.outputs[0])
        case _:
            nodes["normed"].replace_input_with(1, nodes["second"].inputs[1])
    expected = run_whole(model, *draw_tokens())
    assert not {"second", "bent"} & set(scale(model, tmp_path))
    np.testing.assert_allclose(run_whole(model, *draw_tokens()), expected, atol=2e-4)
