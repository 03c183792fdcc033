"""What the process of a subject does by itself."""

import threading
import time

import numpy as np
import onnx
import pytest

from bench.subjects.subject import SubjectSpec
from bench.subjects.worker import Worker, run_streams
from runtimes.errors import UnsupportedModel


def test_every_stream_has_a_call_of_its_own():
    seen = [set(), set()]

    def make_call(number):
        def call():
            seen[number].add(threading.get_ident())
            time.sleep(0.001)

        return call

    runs, ns = run_streams([make_call(0), make_call(1)], 0.05)
    assert runs >= 2
    assert ns >= 50_000_000
    assert [len(threads) for threads in seen] == [1, 1]
    assert seen[0] != seen[1]


def test_a_model_that_gives_texts_is_refused_where_answers_are_kept(tmp_path):
    """They would be written as pickled objects, which nobody reads back."""
    text = """<ir_version: 10, opset_import: ["" : 18]> g (int64[n] x) => (string[n] y) { y = Cast<to=8>(x) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=np.array([1, 2]))
    worker = Worker(
        SubjectSpec(label="m", runtime="onnxruntime", device="cpu", model=tmp_path / "m.onnx", kind="onnx", threads=1)
    )
    worker.open()
    worker.prepare(str(tmp_path / "x.npz"))
    assert worker.run_block(2, 0, 0.0)["ns"]
    with pytest.raises(UnsupportedModel, match="the model gives texts"):
        worker.answer(str(tmp_path / "y.npz"))
    assert not (tmp_path / "y.npz").exists()
