"""What an exported directory needs is looked at before its model is opened."""

from pathlib import Path

import pytest

from runtimes.artifact import Manifest
from runtimes.errors import CorruptArtifact, MissingDependency
from runtimes.serving.exported import choose_artifact


def _choose(requires: object) -> Path:
    description = {
        "path": "onnxruntime/model.onnx",
        "isa": "avx2",
        "provider": "CPUExecutionProvider",
        "exact_on_any_cpu": True,
        "requires": requires,
    }
    manifest = Manifest(
        tool={}, source={}, recipe={}, steps=(), artifacts={"onnxruntime": description}, files=(), machine={}
    )
    return choose_artifact(Path("exported"), manifest, None).path


def test_a_model_whose_needs_are_met_is_chosen():
    assert _choose({"onnxruntime": ">=1.17"}) == Path("exported/onnxruntime/model.onnx")


def test_a_later_version_is_asked_for():
    with pytest.raises(MissingDependency, match=r"needs ONNX Runtime 99\.0 or later") as caught:
        _choose({"onnxruntime": ">=99.0"})
    assert "pip install" in str(caught.value)


@pytest.mark.parametrize("requires", [None, [], {}, {"onnxruntime": 1}, {"onnxruntime": ">=new"}])
def test_a_manifest_that_does_not_say_is_damaged(requires):
    with pytest.raises(CorruptArtifact, match="describes no ONNX Runtime model"):
        _choose(requires)
