"""What an exported directory needs is looked at before its model is opened."""

from importlib.metadata import version
from pathlib import Path

import pytest

from exporter.subject import choose_artifact
from runtimes.artifact import Manifest
from runtimes.errors import CorruptArtifact, MissingDependency


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
    return choose_artifact(Path("exported"), manifest, None)[0]


def test_a_model_whose_needs_are_met_is_chosen():
    assert _choose({"onnxruntime": ">=1.17"}) == Path("exported/onnxruntime/model.onnx")
    assert _choose({"onnxruntime": ">=1.17", "stepdown": f">={version('stepdown')}"}).name == "model.onnx"


@pytest.mark.parametrize(
    ("requires", "words"),
    [
        ({"onnxruntime": ">=99.0"}, "needs ONNX Runtime 99.0 or later"),
        ({"onnxruntime": ">=1.17", "stepdown": ">=99.0.1"}, "needs the sparse kernels of stepdown 99.0.1 or later"),
    ],
)
def test_a_later_version_is_asked_for(requires, words):
    with pytest.raises(MissingDependency, match=words) as caught:
        _choose(requires)
    assert "pip install" in str(caught.value)


@pytest.mark.parametrize(
    "requires",
    [None, [], {}, {"onnxruntime": 1}, {"onnxruntime": ">=new"}, {"onnxruntime": ">=1.17", "stepdown": ">=x.y"}],
)
def test_a_manifest_that_does_not_say_is_damaged(requires):
    with pytest.raises(CorruptArtifact, match="describes no ONNX Runtime model"):
        _choose(requires)
