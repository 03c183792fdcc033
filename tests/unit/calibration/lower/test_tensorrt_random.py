"""Any graph of linears, convolutions and attention lowers to one that passes the lint and computes the right integers.

Right is what :mod:`tests.oracles` says: every integer of the graph that ONNX Runtime computes, operator by operator.
"""

import hypothesis
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from calibration.linears import find_linears
from calibration.lower.tensorrt.lower import lower_tensorrt
from calibration.lower.tensorrt.products import find_products
from calibration.magnitudes import MASK_BELOW
from exporter.lint.rule import run_rules
from exporter.lint.tensorrt import RULES
from tests import oracles
from tests.unit.calibration.lower.random_graphs import Graph, make_feeds, make_plan, recipes, smoothen

EXAMPLES = hypothesis.settings(max_examples=25)
# Larger activations are taken for the fillings of masks, by the lint and by calibration.
LARGEST = 1e7


def run_all(proto, feeds):
    """Run a graph as it is written and return every value that a node of it computes, and what it is fed."""
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    present = {value.name for value in whole.graph.output}
    names = [name for node in whole.graph.node for name in node.output]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {**feeds, **dict(zip(names, session.run(names, feeds), strict=True))}


def measure(values):
    """Return the largest magnitude of each float value, as calibration does."""
    floats = {name: array for name, array in values.items() if array.dtype == np.float32}
    return {name: float(np.abs(array[array > MASK_BELOW]).max(initial=0.0)) for name, array in floats.items()}


class Sample:
    """A random graph, lowered, with what it was made from."""

    def __init__(self, recipe, precision, *, with_products):
        self.feeds = make_feeds(recipe)
        self.proto = Graph(recipe).finish()
        self.plain = run_all(self.proto, self.feeds)
        magnitudes = measure(self.plain)
        hypothesis.assume(max(magnitudes.values()) < LARGEST)
        self.model = ir.from_proto(self.proto)
        self.weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in self.proto.graph.initializer}
        self.linears = find_linears(self.model)
        self.plan = make_plan(self.model, self.linears, magnitudes, recipe.seed)
        self.products = find_products(self.model, magnitudes) if with_products else ()
        self.found = lower_tensorrt(
            self.model, self.linears, self.plan, precision=precision, magnitudes=magnitudes, products=self.products
        )
        self.nodes = {node.name: node for node in self.model.graph}


def read_constant(value):
    return value.const_value.numpy()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@hypothesis.given(recipe=recipes(), with_products=hypothesis.strategies.booleans())
@EXAMPLES
def test_what_is_lowered_passes_the_lint(precision, recipe, with_products):
    sample = Sample(recipe, precision, with_products=with_products)
    findings = run_rules(sample.model, RULES)
    assert [(one.rule, one.node, one.what) for one in findings] == []
    onnx.checker.check_model(ir.to_proto(sample.model), full_check=True)
    assert [(value.name, value.dtype) for value in (*sample.model.graph.inputs, *sample.model.graph.outputs)] == [
        (value.name, ir.DataType.FLOAT) for value in (*sample.proto.graph.input, *sample.proto.graph.output)
    ]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@hypothesis.given(recipe=recipes(), with_products=hypothesis.strategies.booleans())
@EXAMPLES
def test_integers_feed_products_and_nothing_else(precision, recipe, with_products):
    """No output is quantised, and no Cast stands between integers and their product, which would keep them apart."""
    sample = Sample(recipe, precision, with_products=with_products)
    wanted = {linear.node for linear in sample.linears} | {product.node for product in sample.products}
    assert set(sample.found.int8) == wanted
    dequantisers = [node for node in sample.model.graph if node.op_type == "DequantizeLinear"]
    assert {use.node.name for node in dequantisers for use in node.outputs[0].uses()} == wanted
    for name in wanted:
        makers = [value.producer() for value in sample.nodes[name].inputs[:2]]
        assert [maker.op_type for maker in makers] == ["DequantizeLinear"] * 2


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@hypothesis.given(recipe=recipes(), with_products=hypothesis.strategies.booleans())
@EXAMPLES
def test_onnxruntime_and_numpy_agree_on_every_integer(precision, recipe, with_products):
    sample = Sample(recipe, precision, with_products=with_products)
    values = run_all(ir.to_proto(sample.model), sample.feeds)
    pairs = 0
    for node in sample.model.graph:
        if node.op_type == "QuantizeLinear":
            given, scale = values[node.inputs[0].name], read_constant(node.inputs[1])
            # TensorRT saturates an infinity; what ONNX Runtime makes of one is up to the CPU.
            assert np.isfinite(given).all()
            np.testing.assert_array_equal(values[node.outputs[0].name], oracles.quantise(given, scale))
            pairs += 1
        elif node.op_type == "DequantizeLinear":
            integers, axis = read_integers(node, values)
            scale = read_constant(node.inputs[1])
            np.testing.assert_array_equal(values[node.outputs[0].name], oracles.dequantise(integers, scale, axis))
    assert pairs == len(sample.plan.groups) + 2 * len(sample.products)
    assert np.isfinite(values[sample.model.graph.outputs[0].name]).all()


@hypothesis.given(recipe=recipes(), with_products=hypothesis.strategies.booleans())
@EXAMPLES
def test_products_are_those_of_the_integers(recipe, with_products):
    """float32 holds these sums so well that the integer behind each is the only one near."""
    sample = Sample(recipe, "fp32", with_products=with_products)
    values = run_all(ir.to_proto(sample.model), sample.feeds)
    for name in sample.found.int8:
        node = sample.nodes[name]
        left, right = (value.producer() for value in node.inputs[:2])
        (ours, _), (theirs, axis) = read_integers(left, values), read_integers(right, values)
        scale = read_constant(left.inputs[1]).astype(np.float64) * read_constant(right.inputs[1])
        # What an output channel is multiplied by lies along the last axis, or behind a Conv along the second.
        scale = scale.reshape(-1, 1, 1) if node.op_type == "Conv" else scale
        bias = read_constant(node.inputs[2]).astype(np.float64) if len(node.inputs) > 2 else np.zeros(())
        bias = bias.reshape(-1, 1, 1) if node.op_type == "Conv" and bias.size > 1 else bias
        turned = theirs.T if node.op_type == "Gemm" and axis == 0 else theirs
        exact, magnitude, terms = multiply(node, ours, turned)
        got = values[node.outputs[0].name].astype(np.float64)
        slack = oracles.bound_rounding(magnitude, terms) + 2 * oracles.ROUNDING * np.abs(got) / scale
        steps = (got - bias) / scale
        assert (np.abs(steps - exact) <= slack).all()
        near = slack < 0.5
        np.testing.assert_array_equal(np.rint(steps)[near], exact[near])


def multiply(node, ours, theirs):
    """Return the exact product, the same of magnitudes, and how many terms each sum has."""
    if node.op_type != "Conv":
        magnitude = oracles.multiply(np.abs(ours.astype(np.int64)), np.abs(theirs.astype(np.int64)))
        return oracles.multiply(ours, theirs), magnitude, theirs.shape[-2]
    attributes = {
        "strides": node.attributes["strides"].as_ints() if "strides" in node.attributes else (1, 1),
        "pads": node.attributes["pads"].as_ints(),
        "group": node.attributes["group"].as_int(),
    }
    magnitude = oracles.convolve(np.abs(ours.astype(np.int64)), np.abs(theirs.astype(np.int64)), **attributes)
    return oracles.convolve(ours, theirs, **attributes), magnitude, theirs[0].size


def read_integers(node, values):
    """Return what a DequantizeLinear reads, and its axis where it has scales a channel."""
    source = node.inputs[0]
    integers = read_constant(source) if source.const_value is not None else values[source.name]
    return integers, node.attributes["axis"].as_int() if "axis" in node.attributes else None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@hypothesis.given(recipe=recipes())
@EXAMPLES
def test_weights_are_the_integers_of_the_scales_that_are_stored(precision, recipe):
    sample = Sample(recipe, precision, with_products=False)
    smoothing = {name: group.smooth for group in sample.plan.groups for name in group.linears}
    entries = {entry.node: entry for entry in sample.plan.linears}
    for linear in sample.linears:
        dequantise = sample.nodes[linear.node].inputs[1].producer()
        axis = 0 if linear.transposed else 1
        assert (dequantise.op_type, dequantise.attributes["axis"].as_int()) == ("DequantizeLinear", axis)
        stored, scale = (read_constant(value) for value in dequantise.inputs[:2])
        assert (scale.astype(np.float32) >= entries[linear.node].weight_scale).all()
        weight = smoothen(sample.weights[linear.weight], smoothing[linear.node], axis)
        expected = np.clip(np.rint(weight / oracles.spread(scale, axis, weight.ndim)), -127, 127)
        np.testing.assert_array_equal(stored, expected.astype(np.int8))
        assert stored.dtype == np.int8
