import numpy as np
import onnx
import pytest

from calibration.collect import collect
from calibration.data import open_dataset
from calibration.magnitudes import list_floats, merge_magnitudes, read_magnitudes
from runtimes.errors import UnsupportedModel
from runtimes.ort import describe_onnx
from tests.unit.calibration.conftest import make_encoder

# Scores with a mask on top, an infinity, and integers nobody measures.
MASKED = """<ir_version: 8, opset_import: ["" : 17]>
masked (float[batch, sequence] x, int64[batch, sequence] attention_mask)
    => (float[batch, sequence] out, int64[2] size) {
    one = Constant <value = float {1.0}> ()
    far = Constant <value = float {-3.0e38}> ()
    kept = Cast <to = 1> (attention_mask)
    hidden = Sub (one, kept)
    filling = Mul (hidden, far)
    scores = Add (x, filling)
    out = Softmax <axis = -1> (scores)
    size = Shape (x)
}"""


@pytest.fixture
def masked(tmp_path):
    path = tmp_path / "masked.onnx"
    onnx.save(onnx.parser.parse_model(MASKED), path)
    return path


def _measure(path, tmp_path, **arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    dataset = open_dataset(str(tmp_path / "data.npz"), describe_onnx(path).inputs, None)
    return collect(path, dataset, [], measured=list_floats(path)).magnitudes


def test_every_float_value_is_measured_and_nothing_else(masked):
    assert list_floats(masked) == ("x", "one", "far", "kept", "hidden", "filling", "scores", "out")


def test_the_magnitude_is_the_largest_over_all_samples(masked, tmp_path):
    x = np.array([[1, 2, -7], [3, -4, 5]], np.float32)
    found = _measure(masked, tmp_path, x=x, attention_mask=np.ones((2, 3), np.int64))
    assert found["x"] == found["scores"] == 7
    assert 0 < found["out"] < 1


def test_the_filling_of_a_mask_does_not_count(masked, tmp_path):
    x = np.array([[1, 2, -7], [3, -4, 5]], np.float32)
    mask = np.array([[1, 1, 0], [1, 1, 0]], np.int64)
    found = _measure(masked, tmp_path, x=x, attention_mask=mask)
    assert found["filling"] == 0
    assert found["scores"] == 3


def test_an_infinity_is_one_and_a_mask_of_infinities_none():
    found = {"a::largest": np.inf, "a::smallest": -1.0, "b::largest": 2.0, "b::smallest": -np.inf}
    assert read_magnitudes(("a", "b"), found) == {"a": np.inf, "b": 2.0}


def test_magnitudes_do_not_depend_on_the_order_of_shards():
    first, second = {"a": 1.0, "b": 5.0}, {"a": 2.0, "c": 3.0}
    assert merge_magnitudes(first, second) == merge_magnitudes(second, first) == {"a": 2.0, "b": 5.0, "c": 3.0}


@pytest.mark.parametrize("order", [1, -1])
def test_nan_is_the_largest_in_any_order(order):
    assert np.isnan(merge_magnitudes(*[{"a": np.nan}, {"a": 1.0}][::order])["a"])
    ends = dict(zip(("x::largest", "x::smallest"), (np.nan, -1.0)[::order], strict=True))
    assert np.isnan(read_magnitudes(["x"], ends)["x"])


def test_measuring_changes_no_statistics(encoder, text_file, inputs, tokenizer):
    dataset = open_dataset(str(text_file), inputs, tokenizer)
    alone = collect(encoder, dataset, ["hidden"]).tensors["hidden"]
    both = collect(encoder, dataset, ["hidden"], measured=list_floats(encoder))
    assert (alone.histogram.counts == both.tensors["hidden"].histogram.counts).all()
    # Padding counts here, and there alone: its embedding is 1000.
    assert both.magnitudes["hidden"] == 1000 > alone.absmax().max()


def test_a_name_the_graph_lacks_is_refused(tmp_path, text_file, inputs, tokenizer):
    path = tmp_path / "encoder.onnx"
    onnx.save(make_encoder(), path)
    dataset = open_dataset(str(text_file), inputs, tokenizer)
    with pytest.raises(UnsupportedModel, match="no tensor 'scroes'"):
        collect(path, dataset, ["hidden"], measured=["scroes"])


@pytest.mark.parametrize("says_types", [True, False])
def test_a_sequence_is_no_float_value(says_types, tmp_path):
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 8] x) => (float[n, m] y) <int64 first = {0}> {
        h = Neg (x)
        parts = SplitToSequence <axis = 1> (h)
        y = SequenceAt (parts, first)
    }""")
    onnx.save(onnx.shape_inference.infer_shapes(model) if says_types else model, tmp_path / "m.onnx")
    assert list_floats(tmp_path / "m.onnx") == ("x", "h", "y")
