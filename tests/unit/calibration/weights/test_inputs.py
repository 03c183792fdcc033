"""What linears are fed: the same sums however many passes and batches they take, padding left out."""

import numpy as np
import onnx
import pytest

from calibration.weights.inputs import collect_inputs
from runtimes.errors import DataError, UnsupportedModel

DEPTHS = {"first": 4, "second": 6}


@pytest.fixture
def model(tmp_path):
    """Two inner tensors [batch, sequence, depth] of a table's rows."""
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    g (int64[b, s] input_ids, int64[b, t] attention_mask) => (float[b, s, 3] y) {
        first = Gather <axis = 0> (table, input_ids)
        middle = MatMul (first, wide)
        second = Relu (middle)
        y = MatMul (second, narrow)
    }""")
    random = np.random.default_rng(0)
    shapes = {"table": (10, 4), "wide": (4, 6), "narrow": (6, 3)}
    for name, shape in shapes.items():
        array = random.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(proto, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def make_feeds(batches=5, past=0):
    random = np.random.default_rng(1)
    for length in range(3, 3 + batches):
        mask = np.ones((2, past + length), np.int64)
        mask[0, past : past + 2] = 0
        yield {"input_ids": random.integers(0, 10, (2, length)), "attention_mask": mask}


def read_rows(model, feeds):
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(model).graph.initializer}
    first = []
    for one in feeds:
        ids = one["input_ids"]
        first.append(weights["table"][ids[one["attention_mask"][:, -ids.shape[1] :] != 0]])
    first = np.concatenate(first).astype(np.float64)
    return {"first": first, "second": np.maximum(first @ weights["wide"], 0)}


@pytest.mark.parametrize("past", [0, 3])
@pytest.mark.parametrize("budget", [1, 1 << 30])
def test_the_moments_are_those_of_the_tokens(model, tmp_path, budget, past):
    found = collect_inputs(model, lambda: make_feeds(past=past), ("second", "first"), tmp_path, budget_bytes=budget)
    for name, rows in read_rows(model, make_feeds(past=past)).items():
        statistic = found.load(name)
        assert statistic.gram.dtype == statistic.absmean.dtype == np.float32
        np.testing.assert_allclose(statistic.gram, rows.T @ rows / len(rows), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(statistic.absmean, np.abs(rows).mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(statistic.power, np.square(rows).mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(statistic.peak, np.abs(rows).max(axis=0), rtol=1e-5)
        np.testing.assert_allclose(statistic.tokens, rows, rtol=1e-5, atol=1e-6)


def test_a_small_budget_takes_a_pass_for_each(model, tmp_path):
    passes = []

    def read():
        passes.append(1)
        return make_feeds()

    collect_inputs(model, read, tuple(DEPTHS), tmp_path, budget_bytes=1)
    few = len(passes)
    passes.clear()
    collect_inputs(model, read, tuple(DEPTHS), tmp_path)
    assert few == len(passes) + 1


def test_divided_inputs_have_divided_moments(model, tmp_path):
    statistic = collect_inputs(model, make_feeds, ("first",), tmp_path).load("first")
    scales = np.array([1, 2, 4, 0.5], np.float32)
    rows = read_rows(model, make_feeds())["first"] / scales
    divided = statistic.divide(scales)
    np.testing.assert_allclose(divided.gram, rows.T @ rows / len(rows), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(divided.absmean, np.abs(rows).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(divided.peak, np.abs(rows).max(axis=0), rtol=1e-5)
    np.testing.assert_allclose(divided.tokens, rows, rtol=1e-5, atol=1e-6)


def test_of_many_tokens_some_are_kept_the_first_of_each_batch_among_them(model, tmp_path):
    random = np.random.default_rng(2)
    ids = [random.integers(0, 10, (4, 100)) for _ in range(20)]
    feeds = [{"input_ids": one, "attention_mask": np.ones_like(one)} for one in ids]
    kept = collect_inputs(model, lambda: feeds, ("first",), tmp_path).load("first").tokens
    table = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(model).graph.initializer}["table"]
    assert len(kept) == 8 * 58  # every seventh of a batch, of as many batches as it takes
    for place in range(8):
        np.testing.assert_array_equal(kept[place * 58], table[ids[place][0, 0]])


def test_no_data_is_refused(model, tmp_path):
    with pytest.raises(DataError, match="nothing to run"):
        collect_inputs(model, lambda: [], ("first",), tmp_path)


def test_padding_alone_is_refused(model, tmp_path):
    feeds = [{**one, "attention_mask": one["attention_mask"] * 0} for one in make_feeds(1)]
    with pytest.raises(DataError, match="padding"):
        collect_inputs(model, lambda: feeds, ("first",), tmp_path)


def test_a_tensor_that_is_not_there_is_named(model, tmp_path):
    with pytest.raises(UnsupportedModel, match="third"):
        collect_inputs(model, make_feeds, ("third",), tmp_path)


def test_what_was_not_collected_is_named(model, tmp_path):
    with pytest.raises(DataError, match="second"):
        collect_inputs(model, make_feeds, ("first",), tmp_path).load("second")


def test_infinity_is_blamed_on_its_tensor(model, tmp_path):
    proto = onnx.load(model)
    wide = next(one for one in proto.graph.initializer if one.name == "wide")
    wide.CopyFrom(onnx.numpy_helper.from_array(np.full((4, 6), np.inf, np.float32), "wide"))
    onnx.save(proto, model)
    with pytest.raises(UnsupportedModel, match="second"):
        collect_inputs(model, make_feeds, ("second",), tmp_path)
