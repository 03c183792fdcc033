import numpy as np
import onnxruntime
import pytest

from bench.suites.attention import LOWEST, build_model, make_feeds


def _run(operator, feeds):
    session = onnxruntime.InferenceSession(
        build_model(operator).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]


def test_a_quarter_of_the_keys_is_masked():
    bias = make_feeds((2, 8), -60.0, padded=True)["bias"]
    assert bias.shape == (2, 1, 8, 8)
    assert (bias[0, 0, 0] == -60).tolist() == [False] * 6 + [True] * 2
    assert not make_feeds((2, 8), -60.0, padded=False)["bias"].any()


@pytest.mark.parametrize(
    ("operator", "fill"), [("MultiHeadAttention", -60.0), ("Attention", LOWEST), ("Attention", -60.0)]
)
def test_all_subjects_compute_the_same(operator, fill):
    expected = _run("MultiHeadAttention", make_feeds((2, 8), LOWEST, padded=True))
    got = _run(operator, make_feeds((2, 8), fill, padded=True))
    np.testing.assert_allclose(got, expected, atol=1e-5)
