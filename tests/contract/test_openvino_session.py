"""OpenVINO as a session: the same answers as the other subjects get asked for."""

import numpy as np
import pytest

from runtimes.errors import UsageError
from tests.contract.tiny_models import BIAS, WEIGHT, write_onnx

pytest.importorskip("openvino")
from bench.peers.openvino_session import open_openvino


def test_it_answers_like_the_rest(tmp_path):
    session = open_openvino(write_onnx(tmp_path), threads=1, precision="f32")
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.inputs] == [("x", "float32", ("x.0", 4))]
    assert [spec.name for spec in session.outputs] == ["y"]
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_allclose(session.run({"x": x})["y"], x @ WEIGHT + BIAS, rtol=1e-5, atol=1e-6)
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run({"x": x})
