import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibration.quantise import fake_quantise, fit_grid, make_grid, quantise, quantise_weight

weights = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=8), elements=st.floats(-1e6, 1e6, width=32)
)


@pytest.mark.parametrize(
    ("bits", "symmetric", "reduced", "expected"),
    [
        (8, True, False, (-127, 127, "int8")),
        (8, True, True, (-63, 63, "int8")),
        (8, False, False, (0, 255, "uint8")),
        (8, False, True, (0, 127, "uint8")),
        (4, True, False, (-7, 7, "int8")),
    ],
)
def test_grids(bits, symmetric, reduced, expected):
    grid = make_grid(bits, symmetric=symmetric, reduce_range=reduced)
    assert (grid.low, grid.high, grid.dtype) == expected


def test_there_is_no_grid_of_nine_bits():
    with pytest.raises(ValueError, match="9 bits"):
        make_grid(9, symmetric=True)


@pytest.mark.parametrize("symmetric", [True, False])
def test_quantising_agrees_with_onnxruntime(symmetric):
    import onnx
    import onnxruntime

    grid = make_grid(8, symmetric=symmetric)
    zero_point = 0 if symmetric else 117
    values = np.concatenate([np.arange(-300, 300) * 0.25, np.random.default_rng(0).normal(0, 40, 999)])
    values = values.astype(np.float32)
    zero_type = "int8" if symmetric else "uint8"
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[n] x) => ({zero_type}[n] q, float[n] y)
    <float s = {{0.5}}, {zero_type} z = {{{zero_point}}}> {{
        q = QuantizeLinear (x, s, z)
        y = DequantizeLinear (q, s, z)
    }}"""
    model = onnx.parser.parse_model(text).SerializeToString()
    q, y = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": values})
    ours = quantise(values, 0.5, zero_point, grid)
    # Our symmetric grid leaves out -128, which ONNX saturates to.
    assert (ours == np.maximum(q, grid.low)).all()
    expected = np.maximum(y, (grid.low - zero_point) * 0.5)
    assert (fake_quantise(values, 0.5, zero_point, grid) == expected).all()


@given(weights, st.integers(0, 2), st.booleans(), st.booleans(), st.booleans())
def test_a_weight_comes_back_within_half_a_step(weight, axis, symmetric, reduced, clip):
    axis %= weight.ndim
    q, scale, zero = quantise_weight(weight, axis, symmetric=symmetric, reduce_range=reduced, clip=clip)
    grid = make_grid(8, symmetric=symmetric, reduce_range=reduced)
    assert q.dtype == zero.dtype == np.dtype(grid.dtype)
    assert q.shape == weight.shape
    assert len(scale) == weight.shape[axis]
    assert (q >= grid.low).all()
    assert (q <= grid.high).all()
    shape = [1] * weight.ndim
    shape[axis] = -1
    steps = scale.astype(np.float64).reshape(shape)
    error = np.abs((q.astype(int) - zero.astype(int).reshape(shape)) * steps - weight)
    rows = np.moveaxis(error, axis, 0).reshape(len(scale), -1)
    if clip:
        plain, plain_scale, plain_zero = quantise_weight(weight, axis, symmetric=symmetric, reduce_range=reduced)
        base = (plain.astype(int) - plain_zero.astype(int).reshape(shape)) * plain_scale.astype(float).reshape(shape)
        base_rows = np.moveaxis(base - weight, axis, 0).reshape(len(scale), -1)
        assert (np.square(rows).sum(axis=1) <= np.square(base_rows).sum(axis=1) * 1.001 + 1e-12).all()
    else:
        # Half a step, and with a rounded zero point half a step more at the ends.
        assert (rows <= scale[:, None] * (0.501 if symmetric else 1.01)).all()


@given(weights)
def test_zero_stays_zero(weight):
    weight[..., 0] = 0
    for symmetric in (True, False):
        q, _, zero = quantise_weight(weight, 0, symmetric=symmetric)
        shape = (-1, *[1] * (weight.ndim - 1))
        assert ((q == zero.reshape(shape)) | (weight != 0)).all()


def test_an_empty_channel_has_scale_one():
    scale, zero = fit_grid(np.zeros(2, np.float32), np.zeros(2, np.float32), make_grid(8, symmetric=True))
    assert scale.tolist() == [1, 1]
    assert zero.tolist() == [0, 0]
