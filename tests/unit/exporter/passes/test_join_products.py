"""Products joined over one input answer what they answered, to the bit."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from calibration.linears import find_linears
from calibration.lower.edits import remove_dead
from calibration.lower.onnxruntime.per_token import lower_per_token
from calibration.lower.onnxruntime.sites import find_sites
from calibration.lower.onnxruntime.weight_only import place_blocks
from calibration.weights.blocks import BlockFormat
from calibration.weights.rtn import round_to_nearest
from exporter.passes.join_products import join_products
from exporter.passes.prepare import name_nodes

DEPTH, QUERY, KEY = 64, 64, 32
BLOCKS = {8: BlockFormat(bits=8, size=32), 4: BlockFormat(bits=4, size=32, symmetric=False)}


def make_float(widths, biased=()):
    """Return a graph of linears over one input, an output for each."""
    lines = [
        f"p{i} = MatMul(x, w{i})\n o{i} = {f'Add(p{i}, b{i})' if i in biased else f'Neg(p{i})'}"
        for i in range(len(widths))
    ]
    outputs = ", ".join(f"float[n, {width}] o{i}" for i, width in enumerate(widths))
    made = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[n, {DEPTH}] x) => ({outputs}) {{\n'
        + "\n".join(lines)
        + "\n}"
    )
    generator = np.random.default_rng(0)
    for i, width in enumerate(widths):
        store(made, f"w{i}", generator.standard_normal((DEPTH, width)))
        if i in biased:
            store(made, f"b{i}", generator.standard_normal(width))
    for place, node in enumerate(made.graph.node):
        node.name = f"n{place}"
    return ir.from_proto(made)


def store(proto, name, array):
    proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))


def round_tokens(model):
    lower_per_token(model, find_linears(model), weight_bits=8)


def round_blocks(bits):
    def place(model):
        model.graph.opset_imports.setdefault("com.microsoft", 1)
        for site in find_sites(model, find_linears(model)):
            place_blocks(model, site, round_to_nearest(site.weight.T, BLOCKS[bits]), accuracy=4)

    return place


def answer(model):
    name_nodes(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    x = np.random.default_rng(1).standard_normal((5, DEPTH)).astype(np.float32)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def kinds(model):
    return [node.op_type for node in model.graph]


FORMS = [(round_tokens, "MatMulIntegerToFloat"), (round_blocks(8), "MatMulNBits"), (round_blocks(4), "MatMulNBits")]


@pytest.mark.parametrize(("lower", "product"), FORMS, ids=["a scale a token", "8 bits", "4 bits"])
@pytest.mark.parametrize("biased", [(), (0, 1, 2)], ids=["plain", "biased"])
def test_query_key_and_value_become_one_product_and_answer_the_same(lower, product, biased):
    model = make_float((QUERY, KEY, KEY), biased)
    lower(model)
    expected = answer(model)
    assert kinds(model).count(product) == 3
    assert join_products(model) == 1
    assert kinds(model).count(product) == kinds(model).count("Split") == 1
    for got, want in zip(answer(model), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_rows_are_multiplied_with_their_magnitudes_once():
    model = make_float((QUERY, KEY, KEY))
    round_tokens(model)
    join_products(model)
    assert kinds(model).count("Mul") == 1


def test_it_is_joined_once_and_nothing_that_was_joined_is_kept():
    model = make_float((QUERY, KEY, KEY))
    round_blocks(8)(model)
    remove_dead(model)
    held = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    join_products(model)
    sizes = 3 * 8
    assert sum(value.const_value.nbytes for value in model.graph.initializers.values()) == held + sizes
    assert join_products(model) == 0


def test_values_keep_their_names():
    model = make_float((QUERY, KEY))
    round_blocks(8)(model)
    join_products(model)
    (split,) = [node for node in model.graph if node.op_type == "Split"]
    assert [value.name for value in split.outputs] == ["p0", "p1"]


@pytest.mark.parametrize("lower", [round_tokens, round_blocks(8)], ids=["a scale a token", "blocks"])
def test_what_is_wide_is_left_alone(lower):
    """The split would copy it: gate and up."""
    model = make_float((2 * DEPTH, 2 * DEPTH))
    lower(model)
    assert join_products(model) == 0


def test_other_blocks_are_another_product():
    model = make_float((QUERY, KEY))
    model.graph.opset_imports.setdefault("com.microsoft", 1)
    for site, bits in zip(find_sites(model, find_linears(model)), BLOCKS, strict=True):
        place_blocks(model, site, round_to_nearest(site.weight.T, BLOCKS[bits]), accuracy=4)
    assert join_products(model) == 0


def test_a_product_that_something_else_is_multiplied_with_is_split_before():
    """Query times key of the same input: what one reads of the other comes after both."""
    made = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[n, {DEPTH}] x) => (float[n, {KEY}] y) {{
        p0 = MatMul(x, w0)
        s = Sigmoid(p0)
        p1 = MatMul(x, w1)
        y = Mul(p1, s)
    }}""")
    for i in range(2):
        store(made, f"w{i}", np.random.default_rng(i).standard_normal((DEPTH, KEY)))
    for place, node in enumerate(made.graph.node):
        node.name = f"n{place}"
    model = ir.from_proto(made)
    round_blocks(8)(model)
    expected = answer(model)
    assert join_products(model) == 1
    np.testing.assert_array_equal(answer(model)[0], expected[0])
