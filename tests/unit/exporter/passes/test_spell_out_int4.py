import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.passes.packed_weights import find_few_levels
from exporter.passes.spell_out_int4 import spell_out_int4

RANDOM = np.random.default_rng(0)
LEVELS = RANDOM.integers(-8, 8, (64, 48))
SCALES = RANDOM.uniform(0.05, 0.1, (2, 48)).astype(np.float32)


def make_model(body, kind=TensorProto.INT4, scale=SCALES):
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[n, 64] x, int64[n] ids) => (float[n, c] y) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    weight = helper.make_tensor("w", kind, LEVELS.shape, LEVELS.flatten().tolist())
    proto.graph.initializer.extend([weight, numpy_helper.from_array(scale, "s")])
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    return ir.from_proto(proto)


BLOCKS = "d = DequantizeLinear<axis=0, block_size=32>(w, s)  y = MatMul(x, d)"


@pytest.mark.parametrize(
    ("body", "scale"),
    [
        (BLOCKS, SCALES),
        ("d = DequantizeLinear<axis=1>(w, s)  y = MatMul(x, d)", SCALES[0]),
        ("d = DequantizeLinear(w, s)  y = Gemm(x, d)", SCALES[0, 0]),
    ],
)
def test_four_bits_become_floats(body, scale):
    model = make_model(body, scale=scale)
    assert spell_out_int4(model) == 1
    (node,) = model.graph
    wide = np.repeat(scale, 32, axis=0) if scale.ndim == 2 else scale
    assert np.array_equal(node.inputs[1].const_value.numpy(), (LEVELS * wide).astype(np.float32))
    assert set(model.graph.initializers) == {node.inputs[1].name}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("d = DequantizeLinear<axis=0, block_size=32>(w, s)  y = Gather(d, ids)", TensorProto.INT4),
        (BLOCKS, TensorProto.INT8),
        ("d = DequantizeLinear<axis=0, block_size=32>(w, s)  m = MatMul(x, d)  y = Add(m, d)", TensorProto.INT4),
    ],
)
def test_everything_else_stays(body, kind):
    model = make_model(body, kind)
    before = len(model.graph)
    assert spell_out_int4(model) == 0
    assert len(model.graph) == before


def test_levels_of_four_bits_are_found_again():
    model = make_model(BLOCKS)
    spell_out_int4(model)
    (found,) = find_few_levels(model).values()
    assert found.bits == 4
    assert found.found.scales.shape == (48, 2)
    assert np.array_equal(found.found.spell_out().T.argmax(0), (LEVELS * np.repeat(SCALES, 32, 0)).argmax(0))
