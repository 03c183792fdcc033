"""One vector a text: the mean over what is not padding."""

import numpy as np
import pytest

from runtimes.errors import UnsupportedModel
from runtimes.serving.pool import pool_outputs


def test_padding_does_not_count_in_the_mean():
    hidden = np.array([[[1.0, 3.0], [3.0, 5.0], [99.0, 99.0]]], np.float32)
    mask = np.array([[1, 1, 0]])
    assert pool_outputs({"h": hidden}, {"attention_mask": mask}).tolist() == [[2.0, 4.0]]


def test_integers_are_no_embedding():
    with pytest.raises(UnsupportedModel, match="no vector a sample"):
        pool_outputs({"ids": np.zeros((1, 2), np.int64)}, {})
