"""A subject in its own process: what it tells, how it fails, and that nothing of it is left behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.subjects.process import SubjectProcess
from bench.subjects.subject import SubjectSpec
from runtimes.errors import CorruptArtifact, DataError, SubjectFailed, UsageError

X = np.array([[1, -2, 3]], np.float32)


def write_model(path, nodes, initializers=()):
    """A model from x [batch, 3] to y."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], list(initializers))
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


def write_endless(path):
    """A model that does not come back: a loop of 2**40 additions."""
    names = {"i": TensorProto.INT64, "c": TensorProto.BOOL}
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c_out"]), helper.make_node("Add", ["v", "one"], ["v_out"])],
        "body",
        [
            *(helper.make_tensor_value_info(name, kind, []) for name, kind in names.items()),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, None),
        ],
    )
    constants = [
        numpy_helper.from_array(np.array(2**40, np.int64), "count"),
        numpy_helper.from_array(np.array(True), "go"),
        numpy_helper.from_array(np.array(1, np.float32), "one"),
    ]
    return write_model(path, [helper.make_node("Loop", ["count", "go", "x"], ["y"], body=body)], constants)


def spec(model, **other):
    return SubjectSpec(label="m", runtime="onnxruntime", device="cpu", model=model, kind="onnx", threads=1, **other)


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])])


@pytest.fixture
def feeds(tmp_path):
    np.savez(tmp_path / "feeds.npz", x=X)
    return tmp_path / "feeds.npz"


def test_open_run_answer(model, feeds, tmp_path):
    with SubjectProcess(spec(model)) as process:
        opened = process.open()
        assert [one.name for one in opened.inputs] == ["x"]
        assert opened.outputs[0].shape == ("batch", 3)
        assert opened.load_ns > 0
        process.prepare(feeds)
        assert len(process.warm_up(0.05)) >= 3
        block = process.run_block(4, discard=1, pause_s=0.0)
        assert len(block) == 4
        assert all(ns > 0 for ns in block)
        process.answer(tmp_path / "y.npz")
        assert process.peak_memory_bytes() > 1_000_000
        runs, ns = process.run_streams(2, 0.1)
        assert runs >= 2
        assert ns >= 100_000_000
    with np.load(tmp_path / "y.npz") as arrays:
        np.testing.assert_array_equal(arrays["y"], -X)


def test_opened_again_it_still_runs_what_it_was_given(model, feeds):
    with SubjectProcess(spec(model)) as process:
        process.open()
        process.prepare(feeds)
        process.open()
        with pytest.raises(UsageError, match="no input"):
            process.run_block(1, discard=0, pause_s=0)
        process.prepare(feeds)
        assert process.run_block(1, discard=0, pause_s=0)


def test_its_own_errors_come_back_as_what_they_are(model, feeds, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with SubjectProcess(spec(broken)) as process, pytest.raises(CorruptArtifact, match=r"broken\.onnx"):
        process.open()
    np.savez(tmp_path / "other.npz", z=X)
    with SubjectProcess(spec(model)) as process:
        process.open()
        with pytest.raises(DataError, match="x"):
            process.prepare(tmp_path / "other.npz")
        # An error is an answer: the process goes on.
        process.prepare(feeds)
        assert process.run_block(1, discard=0, pause_s=0)


def test_a_crash_says_how(model, feeds):
    with SubjectProcess(spec(model)) as process:
        process.open()
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(SubjectFailed, match=r"SIGKILL.*prepare") as caught:
            process.prepare(feeds)
    assert caught.value.exit_code == 4


def test_a_hang_ends_with_the_time_allowed(feeds, tmp_path):
    endless = write_endless(tmp_path / "endless.onnx")
    with SubjectProcess(spec(endless), timeout_s=1.5) as process:
        process.open()
        process.prepare(feeds)
        with pytest.raises(SubjectFailed, match=r"did not answer within 1\.5 s \(doing: warm_up\)"):
            process.warm_up(0.1)
    assert not is_alive(process.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a stopped worker could outlive its parent")
def test_it_is_stopped_while_it_is_not_asked(model, feeds):
    with SubjectProcess(spec(model)) as process:
        process.open()
        assert wait_until(lambda: read_state(process.pid) == "T")
        process.prepare(feeds)
        assert process.run_block(2, discard=0, pause_s=0)
        assert wait_until(lambda: read_state(process.pid) == "T")


def test_nothing_is_left_when_the_block_is_left(model):
    with pytest.raises(KeyboardInterrupt), SubjectProcess(spec(model)) as process:
        raise KeyboardInterrupt
    assert not is_alive(process.pid)


def test_ended_twice_it_is_killed_once(model, monkeypatch):
    """By the second time its number may be another's."""
    killed = []
    kill = os.killpg
    monkeypatch.setattr(os, "killpg", lambda group, number: (killed.append(group), kill(group, number)))
    with SubjectProcess(spec(model)) as process:
        process.close()
    assert killed == [process.pid]


def test_a_worker_ends_when_its_parent_is_killed(model, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time; from pathlib import Path\n"
        "from bench.subjects.process import SubjectProcess; from bench.subjects.subject import SubjectSpec\n"
        f"p = SubjectProcess(SubjectSpec(label='m', runtime='onnxruntime', device='cpu', model=Path({str(model)!r}),"
        " kind='onnx'))\n"
        "p.open(); print(p.pid, flush=True); time.sleep(60)\n",
        encoding="utf-8",
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()
    assert wait_until(lambda: not is_alive(worker))


def test_a_folder_of_the_same_name_in_the_working_directory_is_not_taken_for_ours(model, tmp_path, monkeypatch):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("raise SystemExit('the wrong one')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with SubjectProcess(spec(model)) as process:
        assert process.open().inputs


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds no process to processors")
def test_affinity(model):
    one = min(os.sched_getaffinity(0))
    with SubjectProcess(spec(model, affinity=(one,))) as process:
        process.open()
        assert os.sched_getaffinity(process.pid) == {one}
    # ONNX Runtime binds the threads that it chooses the number of to every core of the machine.
    with SubjectProcess(replace(spec(model, affinity=(one,)), threads=None)) as process:
        process.open()
        threads = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
        assert all(one in os.sched_getaffinity(thread) for thread in threads)
    with SubjectProcess(spec(model, affinity=(4095,))) as process, pytest.raises(UsageError, match="no processors"):
        process.open()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie of another parent has ended all the same.
    return read_state(pid) != "Z"


def read_state(pid):
    """R runs, S sleeps, T is stopped, Z has ended."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def wait_until(holds, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return False
