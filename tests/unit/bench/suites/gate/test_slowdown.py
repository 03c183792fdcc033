"""The slowed model: same answer, work that ONNX Runtime keeps, and as much as asked for."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.suites.gate.slowdown import COLUMNS, add_work, tune_work
from runtimes.errors import Inconclusive, UnsupportedModel, UsageError

HIDDEN, NORMS = 32, 4


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model.onnx", NORMS)


def write_model(path, norms):
    """A tower of normalisations and linears."""
    draw = np.random.default_rng(0)
    nodes, constants, current = [], [], "x"
    for number in range(norms):
        names = [f"scale{number}", f"bias{number}"]
        for name in names:
            constants.append(numpy_helper.from_array(draw.standard_normal(HIDDEN).astype(np.float32), name))
        nodes.append(
            helper.make_node("LayerNormalization", [current, *names], [f"norm{number}"], f"layer.{number}/norm")
        )
        weight = draw.standard_normal((HIDDEN, HIDDEN)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"weight{number}"))
        current = f"linear{number}"
        nodes.append(
            helper.make_node("MatMul", [f"norm{number}", f"weight{number}"], [current], f"layer.{number}/MatMul")
        )
    shape = ["batch", "sequence", HIDDEN]
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(current, TensorProto.FLOAT, shape)],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def run(path, optimised=None):
    options = onnxruntime.SessionOptions()
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    options.log_severity_level = 4
    x = np.random.default_rng(1).standard_normal((2, 5, HIDDEN)).astype(np.float32)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def count_columns(path):
    """Columns of extra work of each place, in graph order."""
    graph = onnx.load(path).graph
    width = {tensor.name: tensor.dims[-1] for tensor in graph.initializer if tensor.dims}
    return [width[node.input[1]] for node in graph.node if node.op_type == "MatMul" and "extra" in node.input[1]]


@pytest.mark.parametrize("units", [1, 2, 3, 10])
def test_the_answer_stays_what_it_was(model, tmp_path, units):
    out = tmp_path / "slower.onnx"
    add_work(model, out, units)
    np.testing.assert_allclose(run(out), run(model), rtol=0, atol=1e-6)
    onnx.checker.check_model(out, full_check=True)


def test_the_runtime_keeps_all_of_the_work_after_optimising(model, tmp_path):
    out, optimised = tmp_path / "slower.onnx", tmp_path / "optimised.onnx"
    add_work(model, out, 7)
    run(out, optimised)
    assert sum(count_columns(optimised)) == 7 * COLUMNS


def test_the_work_is_needed_for_the_answer(model, tmp_path):
    out = tmp_path / "slower.onnx"
    add_work(model, out, 3)
    proto = onnx.load(out)
    tiny = next(tensor for tensor in proto.graph.initializer if tensor.name == "extra_tiny")
    tiny.CopyFrom(numpy_helper.from_array(np.array(1.0, np.float32), "extra_tiny"))
    onnx.save(proto, out)
    assert np.abs(run(out) - run(model)).max() > 1e-3


@pytest.mark.parametrize(("units", "columns"), [(1, [16]), (3, [16] * 3), (7, [48, 32, 32])])
def test_work_is_spread_over_the_places_between_normalisations(model, tmp_path, units, columns):
    add_work(model, tmp_path / "slower.onnx", units)
    assert count_columns(tmp_path / "slower.onnx") == columns


def test_no_work_is_no_slower_model(model, tmp_path):
    with pytest.raises(UsageError, match="0 units"):
        add_work(model, tmp_path / "slower.onnx", 0)


def test_a_model_with_no_place_for_work_is_refused(tmp_path):
    path = write_model(tmp_path / "flat.onnx", 1)
    with pytest.raises(UnsupportedModel, match="not two"):
        add_work(path, tmp_path / "slower.onnx", 1)
    assert not (tmp_path / "slower.onnx").exists()


def measure_columns(base, out):
    """A machine on which a column costs a fixed time, and each place something on top."""
    del base
    columns = count_columns(out)
    return 1 + 0.0001 * sum(columns) + 0.002 * len(columns)


@pytest.mark.parametrize("share", [0.03, 0.05, 0.1, 0.2])
def test_tuning_finds_the_wanted_share(model, tmp_path, share):
    tuned = tune_work(model, tmp_path / "slower.onnx", share, measure_columns)
    assert abs(tuned.share - share) <= 0.003
    assert sum(count_columns(tmp_path / "slower.onnx")) == tuned.units * COLUMNS


def test_tuning_that_ends_short_says_so_and_leaves_the_closest(model, tmp_path):
    with pytest.raises(Inconclusive, match="not 20"):
        tune_work(model, tmp_path / "slower.onnx", 0.2, measure_columns, attempts=1, first_units=2)
    assert sum(count_columns(tmp_path / "slower.onnx")) == 2 * COLUMNS


@pytest.mark.parametrize("disturbed", [[0.99], [1.3], [1.2, 0.9]])
def test_tuning_outlives_disturbed_measurements(model, tmp_path, disturbed):
    answers = iter(disturbed)

    def noisy(base, out):
        return next(answers, None) or measure_columns(base, out)

    assert abs(tune_work(model, tmp_path / "slower.onnx", 0.05, noisy).share - 0.05) <= 0.003


def test_no_slowdown_is_refused(model, tmp_path):
    with pytest.raises(UsageError, match="0"):
        tune_work(model, tmp_path / "slower.onnx", 0, measure_columns)
