"""A model file is input from outside: what does not fit is refused at load, with what was found and expected."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, RuntimeException

from runtimes.errors import CorruptArtifact, StepdownError
from runtimes.ort import OnnxRuntime, describe_onnx
from runtimes.sparse.storage import BLOCKS, StoredWeight, decode, encode
from tests.unit.runtimes.sparse.single_node import find_library, make_arrays, make_attributes, make_model, open_model

OUT, IN = 6, 10
PRODUCT = "out_features * in_features"
REFUSED = (Fail, InvalidArgument, InvalidGraph, RuntimeException)


def make_stored(block=(4, 4), dtype=np.int8) -> StoredWeight:
    weight = np.zeros((OUT, IN), dtype)
    weight[0, 1] = weight[1, 9] = weight[5, 4] = 3
    return encode(weight, block)


def make_parts(dtype=np.int8, block=(4, 4)) -> dict:
    """Return the arrays and the attributes of a node that is right, by name."""
    stored = make_stored(block, dtype)
    scales = np.ones(OUT, np.float32) if dtype == np.int8 else None
    return make_arrays(stored, np.zeros(OUT, np.float32), scales) | make_attributes(stored)


def load(parts: dict, tmp_path) -> None:
    find_library()
    arrays = {name: part for name, part in parts.items() if isinstance(part, np.ndarray)}
    attributes = {name: part for name, part in parts.items() if name not in arrays}
    path = tmp_path / "m.onnx"
    path.write_bytes(make_model(arrays, attributes, ("n", "m")))
    OnnxRuntime().open(describe_onnx(path)).run({"x": np.ones((3, IN), np.float32)})


def put(array: np.ndarray, at: int, value: float) -> np.ndarray:
    changed = array.copy()
    changed[at] = value
    return changed


RIGHT = make_parts()
FLOAT = make_parts(np.float32)


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_right_is_taken(dtype, block, tmp_path):
    load(make_parts(dtype, block), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_features": 0}, "out_features is 0; expected 1 to 16777216"),
        ({"out_features": -(2**63)}, "out_features is -9223372036854775808; expected 1"),
        ({"in_features": 2**63 - 1}, "in_features is 9223372036854775807; expected 1 to 16777216"),
        ({"in_features": 65_537}, "in_features is 65537; expected 1 to 65536"),
        ({"out_features": 2**24, "in_features": 257}, f"{PRODUCT} is 4311744512; expected at most 4294967296"),
        ({"out_features": 257, "in_features": 2**24}, f"{PRODUCT} is 4311744512; expected at most 4294967296"),
        ({"out_features": 2**24, "in_features": 2**24}, f"{PRODUCT} is 281474976710656; expected at most 4294967296"),
        ({"out_features": 2**24, "in_features": 2**8}, "row_starts holds 3 numbers; expected 4194305"),
        ({"block_out": 0}, "block is 0x4; expected 1x1, 4x1"),
        ({"block_out": 1, "block_in": 16}, "block is 1x16; expected"),
        ({"block_in": 2**32 + 4}, "block is 4x4294967300; expected"),
        ({"activation": "swish"}, "activation is 'swish'; expected none, relu, gelu, gelu_tanh or silu"),
        ({"activation": 1}, "activation cannot be read"),
        ({"out_features": 1.5}, "out_features cannot be read"),
        ({"out_features": 9}, "row_starts holds 3 numbers; expected 4, one for each row of blocks and the end"),
        ({"in_features": 8}, "gaps leads to column 2 of blocks in row 0; expected less than 2"),
        ({"in_features": 9}, "values is not 0 past the edge of the weight, in row 0 and column 2 of blocks"),
        ({"out_features": 5}, "values is not 0 past the edge of the weight, in row 1 and column 1 of blocks"),
        ({"values": RIGHT["values"][:-1]}, "values holds 47 numbers; expected 48, a block of 4x4 for each gap"),
        ({"values": RIGHT["values"][:0]}, "values holds 0 numbers; expected 48"),
        ({"values": RIGHT["values"].reshape(3, 16)}, "input 1 has 2 axes; expected 1"),
        ({"gaps": RIGHT["gaps"][:-1]}, "values holds 48 numbers; expected 32"),
        ({"gaps": put(RIGHT["gaps"], 1, 2)}, "gaps leads to column 3 of blocks in row 0; expected less than 3"),
        ({"gaps": put(RIGHT["gaps"], 2, 255)}, "gaps leads to column 255 of blocks in row 1"),
        ({"row_starts": put(RIGHT["row_starts"], 0, 1)}, "row_starts begins with 1; expected 0"),
        ({"row_starts": put(RIGHT["row_starts"], 0, -1)}, "row_starts begins with -1; expected 0"),
        ({"row_starts": put(RIGHT["row_starts"], 1, 2**31 - 1)}, "row_starts falls from 2147483647 to 3"),
        ({"row_starts": put(RIGHT["row_starts"], 1, -5)}, "row_starts falls from 0 to -5 after row 0"),
        ({"row_starts": put(RIGHT["row_starts"], 2, 2)}, "row_starts ends with 2; expected 3, the number of gaps"),
        ({"row_starts": put(RIGHT["row_starts"], 2, 2**31 - 1)}, "row_starts ends with 2147483647; expected 3"),
        ({"row_starts": RIGHT["row_starts"][:0]}, "row_starts holds 0 numbers; expected 3"),
        ({"scales": RIGHT["scales"][1:]}, "scales holds 5 numbers; expected 6, one for each output"),
        ({"scales": put(RIGHT["scales"], 2, np.nan)}, "scales is not finite at 2; expected a finite number"),
        ({"scales": put(RIGHT["scales"], 1, -1)}, "scales is -1.000000 at 1; expected more than 0"),
        ({"scales": put(RIGHT["scales"], 5, 0)}, "scales is 0.000000 at 5; expected more than 0, or 0 where the row"),
        ({"bias": put(RIGHT["bias"], 0, np.inf)}, "bias is not finite at 0; expected a finite number"),
        ({"bias": np.zeros(7, np.float32)}, "bias holds 7 numbers; expected 6, one for each output"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_message(changes, message, tmp_path):
    with pytest.raises(CorruptArtifact) as caught:
        load(RIGHT | changes, tmp_path)
    assert f"SparseLinearInt8: {message}" in caught.value.what


def test_a_row_of_zeros_may_have_a_scale_of_zero(tmp_path):
    load(RIGHT | {"scales": put(RIGHT["scales"], 3, 0)}, tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(value, tmp_path):
    with pytest.raises(CorruptArtifact, match="values is not finite at 1"):
        load(FLOAT | {"values": put(FLOAT["values"], 1, value)}, tmp_path)


@pytest.mark.parametrize("name", ["out_features", "in_features", "block_out", "block_in", "activation"])
def test_every_attribute_is_required(name, tmp_path):
    with pytest.raises(CorruptArtifact, match=f"SparseLinear: {name} cannot be read"):
        load({key: part for key, part in FLOAT.items() if key != name}, tmp_path)


@pytest.mark.parametrize("name", ["values", "gaps", "row_starts", "scales", "bias"])
def test_an_input_of_another_type_is_refused(name, tmp_path):
    with pytest.raises(CorruptArtifact, match=f"float16.* of input parameter \\({name}\\)"):
        load(RIGHT | {name: RIGHT[name].astype(np.float16)}, tmp_path)


@pytest.mark.parametrize("name", ["values", "gaps", "row_starts", "scales", "bias"])
def test_an_input_that_is_computed_is_refused(name):
    stored = make_stored()
    arrays = make_arrays(stored, RIGHT["bias"], RIGHT["scales"])
    number = list(arrays).index(name) + 1
    with pytest.raises(Exception, match=f"input {number} is computed; expected a constant initializer"):
        open_model(make_model(arrays, make_attributes(stored), computed=name))


NORM = {
    "residual": np.ones((3, OUT), np.float32),
    "norm_scale": np.ones(OUT, np.float32),
    "norm_bias": np.ones(OUT, np.float32),
    "epsilon": 1e-6,
}
ALL_OR_NONE = "expected all or none"


@pytest.mark.parametrize("right", [RIGHT, FLOAT])
def test_a_norm_that_is_right_is_taken(right, tmp_path):
    load(right | NORM, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_scale": NORM["norm_scale"][1:]}, "norm_scale holds 5 numbers; expected 6, one for each output"),
        ({"norm_bias": np.ones(7, np.float32)}, "norm_bias holds 7 numbers; expected 6, one for each output"),
        ({"norm_bias": np.ones((6, 1), np.float32)}, "input 8 has 2 axes; expected 1"),
        ({"norm_scale": put(NORM["norm_scale"], 3, np.inf)}, "norm_scale is not finite at 3; expected a finite number"),
        ({"norm_bias": put(NORM["norm_bias"], 0, np.nan)}, "norm_bias is not finite at 0; expected a finite number"),
        ({"epsilon": 0.0}, "epsilon is not a finite number above 0"),
        ({"epsilon": -1e-6}, "epsilon is not a finite number above 0"),
        ({"epsilon": float("nan")}, "epsilon is not a finite number above 0"),
        ({"epsilon": float("inf")}, "epsilon is not a finite number above 0"),
        ({"epsilon": 1}, f"3 of residual, norm_scale and norm_bias are given, without epsilon (float); {ALL_OR_NONE}"),
        (
            {"epsilon": None},
            f"3 of residual, norm_scale and norm_bias are given, without epsilon (float); {ALL_OR_NONE}",
        ),
        (
            {"norm_bias": None},
            f"2 of residual, norm_scale and norm_bias are given, with epsilon (float); {ALL_OR_NONE}",
        ),
        ({"norm_scale": None, "norm_bias": None}, "1 of residual, norm_scale and norm_bias are given, with epsilon"),
        (dict.fromkeys(["residual", "norm_scale", "norm_bias"]), "0 of residual, norm_scale and norm_bias are given"),
        ({"residual": np.ones((2, OUT), np.float32)}, "residual is of shape [2, 6]; expected [3, 6], that of Y"),
        ({"residual": np.ones(OUT, np.float32)}, "residual is of shape [6]; expected [3, 6], that of Y"),
        ({"residual": np.ones((), np.float32)}, "residual is of shape []; expected [3, 6], that of Y"),
    ],
)
def test_a_norm_that_does_not_fit_is_refused_with_a_message(changes, message, tmp_path):
    with pytest.raises(StepdownError) as caught:
        load({name: part for name, part in (RIGHT | NORM | changes).items() if part is not None}, tmp_path)
    assert message in caught.value.what


@pytest.mark.parametrize("left_out", ["residual", "norm_scale", "norm_bias"])
def test_a_norm_without_one_of_its_inputs_is_refused(left_out):
    """A name that is empty, with others after it."""
    arrays = {name: part for name, part in (RIGHT | NORM).items() if isinstance(part, np.ndarray)}
    names = ["" if name == left_out else name for name in arrays]
    attributes = make_attributes(make_stored()) | {"epsilon": 1e-6}
    with pytest.raises(Exception, match=f"2 of residual, norm_scale and norm_bias are given.*{ALL_OR_NONE}"):
        open_model(make_model(arrays, attributes, ("n", "m"), named=names))


@pytest.mark.parametrize("name", ["norm_scale", "norm_bias"])
def test_a_norm_that_is_computed_is_refused(name):
    arrays = {key: part for key, part in (RIGHT | NORM).items() if isinstance(part, np.ndarray)}
    attributes = make_attributes(make_stored()) | {"epsilon": 1e-6}
    with pytest.raises(Exception, match="is computed; expected a constant initializer"):
        open_model(make_model(arrays, attributes, ("n", "m"), computed=name))


@st.composite
def changed_parts(draw) -> dict:
    """A right node of any block and type, with some of its numbers replaced."""
    block = draw(st.sampled_from(BLOCKS))
    parts = make_parts(draw(st.sampled_from([np.int8, np.float32])), block) | draw(st.sampled_from([{}, NORM]))
    for name in draw(st.lists(st.sampled_from(sorted(parts.keys() - {"residual"})), min_size=1, max_size=3)):
        part = parts[name]
        if isinstance(part, int):
            parts[name] = draw(
                st.sampled_from([part - 1, min(part + 1, 2**63 - 1), 1, 4, 16, 0, -1, 2**31 - 1, 2**31, 2**63 - 1])
            )
        elif isinstance(part, np.ndarray) and part.size:
            at = draw(st.integers(0, part.size - 1))
            limits = np.iinfo(part.dtype) if part.dtype.kind in "iu" else np.finfo(part.dtype)
            value = draw(st.sampled_from([0, 1, 2, 3, limits.min, limits.max]))
            size = draw(st.sampled_from([part.size, part.size, part.size - 1, part.size + 1]))
            parts[name] = np.resize(put(part, at, value), size)
    return parts


@settings(max_examples=300, deadline=None)
@given(changed_parts())
def test_what_loads_is_what_the_reference_reads_too(parts):
    """Nothing crashes, and what the kernels take for a weight, numpy takes for one."""
    arrays = {name: part for name, part in parts.items() if isinstance(part, np.ndarray)}
    attributes = {name: part for name, part in parts.items() if name not in arrays}
    find_library()
    try:
        session = open_model(make_model(arrays, attributes, ("n", "m")))
    except REFUSED:
        return
    stored = StoredWeight(
        shape=(parts["out_features"], parts["in_features"]),
        block=(parts["block_out"], parts["block_in"]),
        values=parts["values"], gaps=parts["gaps"], row_starts=parts["row_starts"],
    )  # fmt: skip
    weight = decode(stored)
    feeds = {"x": np.zeros((3, weight.shape[1]), np.float32)}
    if "residual" in arrays and weight.shape[0] != OUT:
        with pytest.raises(REFUSED, match="residual is of shape"):
            session.run(None, feeds)
        return
    assert session.run(None, feeds)[0].shape == (3, weight.shape[0])
