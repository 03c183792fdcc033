"""torch-pruning is asked for what was named, and only a whole checkpoint is kept."""

import json
import sys

import numpy as np
import pytest

from bench.peers import torch_pruning
from runtimes.errors import UnsupportedModel

# Packages of those names that write down what they were asked for.
_STAND_INS = {
    "transformers.py": """
class AutoModelForSequenceClassification:
    @staticmethod
    def from_pretrained(source, **asked):
        raise RuntimeError(f"no model in {source}")
""",
    "torch_pruning.py": "",
}


@pytest.fixture
def python(tmp_path):
    """This Python, with the stand-ins first on its path; it notes the words it was given."""
    site = tmp_path / "site"
    site.mkdir()
    for name, text in _STAND_INS.items():
        (site / name).write_text(text)
    wrapper = tmp_path / "python"
    notes = tmp_path / "words.json"
    note = f"import json,sys; json.dump(sys.argv[1:], open({str(notes)!r}, 'w'))"
    wrapper.write_text(
        f'#!/bin/sh\n"{sys.executable}" -c "{note}" "$@"\nPYTHONPATH="{site}" exec "{sys.executable}" "$@"\n'
    )
    wrapper.chmod(0o755)
    return wrapper


def test_its_failure_is_told_and_nothing_is_left(python, tmp_path):
    samples = {"input_ids": np.ones((3, 16), np.int64), "labels": np.zeros(3, np.int64)}
    pruning = torch_pruning.Pruning(units="heads", importance="taylor", sparsity=0.25, scope="global")
    out = tmp_path / "out"
    before = set(tmp_path.iterdir())
    with pytest.raises(UnsupportedModel, match="no model in"):
        torch_pruning.prune_checkpoint(python, tmp_path / "teacher", out, samples, pruning)
    assert set(tmp_path.iterdir()) - before == {tmp_path / "words.json"}
    words = json.loads((tmp_path / "words.json").read_text())
    assert words[2] == str(tmp_path / "teacher")
    assert words[5:] == ["heads", "taylor", "0.25", "global"]
