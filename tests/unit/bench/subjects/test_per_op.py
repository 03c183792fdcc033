import numpy as np
import pytest
from onnx import helper

from bench.recordings.recording import OpTime
from bench.subjects.per_op import profile_ops, read_events
from bench.subjects.subject import SubjectSpec
from runtimes.errors import MissingDependency, UnsupportedModel
from tests.unit.bench.subjects.test_onnx_modules import HIDDEN, make_node, save

X = {"x": np.ones((2, HIDDEN), np.float32)}


def spec(model, **options):
    return SubjectSpec(
        label="it", **{"runtime": "onnxruntime", "device": "cpu", "model": model, "kind": "onnx"} | options
    )


def write_tower(path):
    weights = {f"layer.{n}.dense.weight": (HIDDEN, HIDDEN) for n in range(2)}
    nodes = [
        make_node("MatMul", ["x", "layer.0.dense.weight"], "a", "layer.0.dense/MatMul"),
        make_node("Tanh", ["a"], "b", "layer.0.act/Tanh"),
        make_node("MatMul", ["b", "layer.1.dense.weight"], "y", "layer.1.dense/MatMul"),
    ]
    return save(path, nodes, weights)


def test_every_operator_comes_back_with_its_module_and_a_time(tmp_path):
    ops = profile_ops(spec(write_tower(tmp_path / "m.onnx")), X, 5, shape="2x8")
    assert [(one.op, one.name, one.module) for one in ops] == [
        ("MatMul", "layer.0.dense/MatMul", "layer.0.dense"),
        ("Tanh", "layer.0.act/Tanh", "layer.0.act"),
        ("MatMul", "layer.1.dense/MatMul", "layer.1.dense"),
    ]
    assert {one.shape for one in ops} == {"2x8"}
    assert sum(one.ns for one in ops) > 0


def test_nothing_is_left_behind(tmp_path):
    model = write_tower(tmp_path / "m.onnx")
    profile_ops(spec(model), X, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_weights_beside_the_model_are_found(tmp_path):
    import onnx

    model = write_tower(tmp_path / "m.onnx")
    onnx.save(onnx.load(model), model, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert len(profile_ops(spec(model), X, 1)) == 3


def event(name, ts, dur, op="Relu", cat="Node"):
    return {"cat": cat, "name": name, "ts": ts, "dur": dur, "args": {"op_name": op}}


def test_times_are_means_over_the_runs_that_count():
    events = [
        event("model_loading", 0, 500, cat="Session"),
        *(event("a_kernel_time", ts, dur) for ts, dur in ((11, 90), (31, 4), (51, 6))),
        *(event("b_kernel_time", ts, 2, op="Add") for ts in (15, 35, 55)),
        # A run is written when it ends, after its nodes.
        *(event("model_run", ts, 10, cat="Session") for ts in (10, 30, 50)),
    ]
    assert tuple(read_events(events, {"a": "layer.0"}, 1, "s")) == (
        OpTime(shape="s", op="Relu", name="a", module="layer.0", ns=5000),
        OpTime(shape="s", op="Add", name="b", module="", ns=2000),
    )


def test_a_branch_counts_once_and_not_its_container_too():
    events = [
        event("model_run", 0, 100, cat="Session"),
        event("if_kernel_time", 1, 50, op="If"),
        event("inner_kernel_time", 2, 40),
    ]
    assert [one.name for one in read_events(events, {}, 0, "")] == ["inner"]


def test_loops_count_every_turn(tmp_path):
    body = helper.make_graph(
        [make_node("Identity", ["go"], "go_on", "keep"), make_node("Tanh", ["h"], "h_next", "loop.body/Tanh")],
        "body",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("turn", 7, []), ("go", 9, []), ("h", 1, None))],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("go_on", 9, []), ("h_next", 1, None))],
    )
    nodes = [
        helper.make_node("Constant", [], ["turns"], "turns", value_int=4),
        helper.make_node("Loop", ["turns", "", "x"], ["y"], "loop/Loop", body=body),
    ]
    ops = profile_ops(spec(save(tmp_path / "m.onnx", nodes)), X, 3)
    assert "Loop" not in {one.op for one in ops}
    assert {one.module for one in ops if one.op == "Tanh"} == {"loop.body"}


def test_compiled_modules_are_refused(tmp_path):
    with pytest.raises(UnsupportedModel, match="several modules"):
        profile_ops(spec(tmp_path, runtime="torch-compile", kind="huggingface"), X, 1)


def test_a_device_whose_operators_the_profile_cannot_time_is_refused(tmp_path, monkeypatch):
    """No CUDA here: onnxruntime is told to have it, which is all that is asked before the refusal."""
    import onnxruntime

    known = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: known)
    with pytest.raises(UnsupportedModel, match="'cuda'"):
        profile_ops(spec(tmp_path, device="cuda"), X, 1)


def test_a_device_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(MissingDependency):
        profile_ops(spec(tmp_path, device="nosuch"), X, 1)
