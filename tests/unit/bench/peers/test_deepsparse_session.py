"""The words that pass between us and DeepSparse's process. Its engine is a stand-in: it has its own environment."""

import signal
import sys
import time

import numpy as np
import pytest

from bench.peers import deepsparse_session
from bench.peers.deepsparse_session import DeepSparseSession
from runtimes.errors import SubjectFailed

ENGINE = """
import os, signal, sys, time

class Endless:
    def __iter__(self):
        return self

    def __next__(self):
        time.sleep(60)

class Engine:
    input_names, output_names = ["x"], ["y"]

    def __init__(self, model, batch_size, num_cores, input_shapes):
        if model == "bad.onnx":
            raise RuntimeError("NM: error: no such operator")
        assert (batch_size, num_cores, input_shapes) == (2, 1, [[2, 3]])
        print("a banner", flush=True)
        if model == "deaf.onnx":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            sys.stdin = Endless()

    def run(self, inputs):
        time.sleep(0.02)
        if inputs[0].flat[0] < 0:
            print("NM: error: illegal instruction")
            os._exit(3)
        return [2 * inputs[0]]
"""


@pytest.fixture
def python(tmp_path, monkeypatch):
    package = tmp_path / "site" / "deepsparse"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(ENGINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return sys.executable


FEEDS = {"x": np.arange(6).reshape(2, 3)}


def test_a_run_gives_outputs_by_name_and_its_own_time(python):
    session = DeepSparseSession(python, "model.onnx", FEEDS, threads=1)
    np.testing.assert_array_equal(session.run(FEEDS)["y"], 2 * FEEDS["x"])
    before_ns, start_ns = session.overhead_ns, time.perf_counter_ns()
    session.prepare(FEEDS)()
    total_ns = time.perf_counter_ns() - start_ns
    overhead_ns = session.overhead_ns - before_ns
    assert 0 < overhead_ns < total_ns - 20_000_000 + 1_000_000
    session.close()


def test_a_model_it_does_not_take_is_an_error_with_its_words(python):
    with pytest.raises(SubjectFailed, match="no such operator"):
        DeepSparseSession(python, "bad.onnx", FEEDS, threads=1)


def test_an_engine_that_dies_is_an_error_with_its_words_and_can_be_closed(python):
    session = DeepSparseSession(python, "model.onnx", {"x": -1 - FEEDS["x"]}, threads=1)
    with pytest.raises(SubjectFailed, match="illegal instruction"):
        session.run(FEEDS)
    with pytest.raises(SubjectFailed, match="DeepSparse"):
        session.run(FEEDS)
    session.close()


def test_a_process_that_died_between_runs_is_an_error_and_can_be_closed(python):
    session = DeepSparseSession(python, "model.onnx", FEEDS, threads=1)
    session._process.kill()
    session._process.wait()
    with pytest.raises(SubjectFailed, match="a banner"):
        session.run(FEEDS)
    session.close()


def test_a_process_that_does_not_end_is_killed(python, monkeypatch):
    monkeypatch.setattr(deepsparse_session, "_END_SECONDS", 0.2)
    session = DeepSparseSession(python, "deaf.onnx", FEEDS, threads=1)
    session.close()
    assert session._process.returncode == -signal.SIGKILL
