import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.weights.blocks import BlockFormat, fit_grid, pack_bits, round_to, search_grid
from runtimes.errors import UsageError

FORMATS = [
    BlockFormat(bits=bits, size=size, symmetric=symmetric)
    for bits in (8, 4, 2)
    for size in (32, 128)
    for symmetric in (True, False)
]


def _rows(count, depth, seed=0):
    return np.random.default_rng(seed).standard_normal((count, depth)).astype(np.float32)


@pytest.mark.parametrize(("bits", "size"), [(3, 32), (4, 48), (4, 256), (8, 8), (2, 16)])
def test_what_no_kernel_takes_is_refused(bits, size):
    with pytest.raises(UsageError, match="to fix: use"):
        BlockFormat(bits=bits, size=size)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_no_value_is_off_by_more_than_it_must(layout):
    rows = _rows(7, 200)
    blocks = round_to(rows, layout, fit_grid(rows, layout))
    steps = np.repeat(blocks.grid.steps, layout.size, axis=1)[:, :200]
    # Half a step, and a whole one where the other end of a symmetric span is one level short; a zero point is rounded.
    most = 1.001 if layout.symmetric else 1.002
    assert (np.abs(blocks.spell_out() - rows) <= np.abs(steps) * most).all()
    assert blocks.levels.max() <= layout.highest
    assert blocks.spell_out().shape == rows.shape


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_zeros_stay_zeros(layout):
    rows = _rows(3, 256)
    rows[:, ::3] = 0
    rows[1] = 0
    rounded = round_to(rows, layout, search_grid(rows, layout, np.ones(256, np.float32))).spell_out()
    assert not rounded[rows == 0].any()


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_a_search_is_never_worse_and_looks_at_what_counts(layout):
    rows, importance = _rows(16, 256), np.ones(256, np.float32)
    importance[::5] = 100
    plain = round_to(rows, layout, fit_grid(rows, layout)).spell_out()
    found = round_to(rows, layout, search_grid(rows, layout, importance)).spell_out()
    before, after = (np.sum(np.square(rounded - rows) * importance, axis=1) for rounded in (plain, found))
    assert (after <= before * 1.0001).all()
    if layout.bits < 8:
        assert after.sum() < before.sum()


@given(bits=st.sampled_from([2, 4, 8]), count=st.integers(1, 5), width=st.integers(1, 33))
def test_packed_bits_come_back(bits, count, width):
    values = np.random.default_rng(width).integers(0, 1 << bits, (count, width)).astype(np.uint8)
    packed = pack_bits(values, bits)
    assert packed.shape == (count, -(-width * bits // 8))
    spread = np.stack([packed >> shift & ((1 << bits) - 1) for shift in range(0, 8, bits)], axis=-1)
    np.testing.assert_array_equal(spread.reshape(count, -1)[:, :width], values)


def test_the_first_value_lies_in_the_lowest_bits():
    assert pack_bits(np.array([[1, 2, 3, 0]], np.uint8), 2).tolist() == [[0b00111001]]
    assert pack_bits(np.array([[1, 2, 3]], np.uint8), 4).tolist() == [[0x21, 0x03]]


@pytest.mark.parametrize("depth", [64, 200])
@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_onnxruntime_multiplies_with_what_is_spelled_out(layout, depth, run_product):
    rows, x = _rows(24, depth), _rows(5, depth, seed=1)
    blocks = round_to(rows, layout, fit_grid(rows, layout))
    np.testing.assert_allclose(run_product(blocks, x), x @ blocks.spell_out().T, rtol=1e-5, atol=1e-4)


@pytest.fixture
def run_product():
    """Multiply by MatMulNBits in float arithmetic."""
    import onnxruntime

    from calibration.lower.onnxruntime.weight_only import store_blocks

    def run(blocks, x):
        fed = ir.Value(name="x", shape=ir.Shape(["n", blocks.depth]), type=ir.TensorType(ir.DataType.FLOAT))
        opsets = {"": 21, "com.microsoft": 1}
        graph = ir.Graph([fed], [], nodes=[], opset_imports=opsets, name="product")
        stored = store_blocks(graph, "weight", blocks)
        sizes = {"K": blocks.depth, "N": len(blocks.levels), "bits": blocks.format.bits}
        attributes = {**sizes, "block_size": blocks.format.size, "accuracy_level": 1}
        node = ir.node("MatMulNBits", [fed, *stored], attributes, domain="com.microsoft")
        graph.append(node)
        made = node.outputs[0]
        made.name, made.type = "y", ir.TensorType(ir.DataType.FLOAT)
        graph.outputs.append(made)
        proto = ir.to_proto(ir.Model(graph, ir_version=10))
        return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]

    return run


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_positive_steps_err_by_half_a_step_at_most(bits):
    rows = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    layout = BlockFormat(bits=bits, size=32, positive=True)
    blocks = round_to(rows, layout, fit_grid(rows, layout))
    assert (blocks.grid.steps > 0).all()
    assert (np.abs(blocks.spell_out() - rows) <= np.repeat(blocks.grid.steps, 32, axis=1) * 0.501).all()
