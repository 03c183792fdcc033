"""scikit-learn is asked for the ranks that were named; all else of the checkpoint stays as it is."""

import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bench.peers import sklearn_svd
from runtimes.errors import UnsupportedModel

# A package of its name, with the one class that is used.
_STAND_IN = """
import numpy as np

class TruncatedSVD:
    def __init__(self, n_components, algorithm, random_state):
        self.rank = n_components

    def fit_transform(self, weight):
        left, sizes, right = np.linalg.svd(weight, full_matrices=False)
        self.components_ = right[: self.rank]
        return left[:, : self.rank] * sizes[: self.rank]
"""


@pytest.fixture
def python(tmp_path):
    """This Python, with the stand-in first on its path."""
    package = tmp_path / "site" / "sklearn"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "decomposition.py").write_text(_STAND_IN)
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path / "site"}" exec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "teacher"
    folder.mkdir()
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((8, 6)).astype(np.float32) for name in ("a.weight", "b.weight")}
    save_file(weights, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_the_named_weight_has_its_rank_and_the_other_is_untouched(python, checkpoint, tmp_path):
    sklearn_svd.truncate_checkpoint(python, checkpoint, tmp_path / "out", {"a.weight": 2})
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "out"))
    assert np.linalg.matrix_rank(after["a.weight"], tol=1e-4) == 2
    assert after["a.weight"].dtype == np.float32
    np.testing.assert_array_equal(after["b.weight"], before["b.weight"])
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"


def test_its_failure_is_told_and_nothing_is_left(python, checkpoint, tmp_path):
    before = set(tmp_path.iterdir())
    with pytest.raises(UnsupportedModel, match="missing"):
        sklearn_svd.truncate_checkpoint(python, checkpoint, tmp_path / "out", {"missing": 2})
    assert set(tmp_path.iterdir()) == before
