"""``stepdown lint``: what it prints, its exit codes, what ``--fix`` writes and what it refuses."""

import json

import numpy as np
import pytest

from tests.unit.exporter.lint.quantised_graphs import save_linear


@pytest.fixture
def clean(tmp_path):
    return save_linear(tmp_path / "clean.onnx")


@pytest.fixture
def unsigned(tmp_path):
    """uint8 around 128: two errors, both of which can be rewritten exactly."""
    return save_linear(tmp_path / "unsigned.onnx", kind=np.uint8, zero=128)


@pytest.fixture
def coarse(tmp_path):
    """A range that gets half as coarse again where it has to be symmetric."""
    return save_linear(tmp_path / "coarse.onnx", kind=np.uint8, zero=64, scale=0.4)


def test_nothing_found(stepdown, clean):
    result = stepdown("lint", clean, "--for", "tensorrt")
    assert (result.code, result.out, result.err) == (0, "nothing found\n", "")


def test_errors_are_named_with_node_reason_and_cure(stepdown, unsigned):
    result = stepdown("lint", unsigned, "--for", "tensorrt")
    assert result.code == 4
    assert result.out.splitlines() == [
        "error integer-type: 2 places, --fix rewrites them",
        "  n_q: its integers are uint8; TensorRT takes int8",
        "  n_d: its integers are uint8; TensorRT takes int8",
        "  to fix: quantise with symmetric int8 activations and weights (ONNX Runtime: ActivationSymmetric=True)",
    ]
    assert "2 places that tensorrt refuses" in result.err
    assert "run with --fix -o FILE.onnx" in result.err


def test_the_document_has_every_finding(stepdown, unsigned):
    result = stepdown("lint", unsigned, "--for", "tensorrt", "--json")
    assert result.code == 4
    assert [(item["rule"], item["node"], item["fixable"]) for item in result.json()["findings"]] == [
        ("integer-type", "n_q", True),
        ("integer-type", "n_d", True),
    ]


def test_warnings_alone_fail_nothing(stepdown, tmp_path):
    model = save_linear(tmp_path / "model.onnx", write_axis=False)
    result = stepdown("lint", model, "--for", "tensorrt")
    assert result.code == 0
    assert result.out.startswith("warning missing-axis: 1 place, --fix")


def test_fix_writes_a_graph_that_passes_and_says_how_near_it_is(stepdown, unsigned, tmp_path):
    out = tmp_path / "fixed.onnx"
    before = unsigned.read_bytes()
    result = stepdown("lint", unsigned, "--for", "tensorrt", "--fix", "-o", out)
    assert result.code == 0, result.err
    assert result.out.splitlines()[0] == "rewritten: integer-type 2"
    assert "cosine to float" in result.out
    assert result.out.splitlines()[-1] == "left: nothing"
    assert unsigned.read_bytes() == before
    assert stepdown("lint", out, "--for", "tensorrt").code == 0


def test_fix_says_what_it_left(stepdown, tmp_path):
    model = save_linear(tmp_path / "model.onnx", scale=0.0, weight_zero=128)
    result = stepdown("lint", model, "--for", "tensorrt", "--fix", "-o", tmp_path / "fixed.onnx", "--json")
    assert result.code == 4
    fixed = result.json()["fixed"]
    assert fixed["applied"] == {"integer-type": 1}
    assert {item["rule"] for item in fixed["left"]} == {"scale"}
    assert "calibrate again" in result.err


def test_a_loss_is_refused_with_the_option_that_accepts_it(stepdown, coarse, tmp_path):
    out = tmp_path / "fixed.onnx"
    words = ("lint", coarse, "--for", "tensorrt", "--fix", "-o", out)
    refused = stepdown(*words, "--json")
    assert refused.code == 5
    error = json.loads(refused.out)["error"]
    assert error["kind"] == "ParityFailure"
    assert not out.exists()
    allowed = error["cure"].rpartition(" ")[2]
    assert stepdown(*words, "--allow-loss", allowed).code == 0
    assert out.is_file()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--for", "coreml"], 2, "use tensorrt"),
        (["--for", "tensorrt", "--fix"], 2, "--fix and -o belong together"),
        (["--for", "tensorrt", "-o", "fixed.onnx"], 2, "--fix and -o belong together"),
        (["--for", "tensorrt", "--allow-loss", "0.1"], 2, "--allow-loss is for --fix"),
        (["--for", "tensorrt", "--fix", "-o", "nowhere/fixed.onnx"], 2, "there is no such folder"),
        (["--for", "tensorrt", "--fix", "-o", "clean.onnx"], 2, "pass --force"),
        (["--for", "tensorrt", "--fix", "-o", ".", "--force"], 2, "the output is a folder"),
        (["--for", "tensorrt", "--fix", "-o", "clean.onnx", "--force"], 2, "the output is the input"),
        ([], 2, "--for"),
    ],
)
def test_what_cannot_be_carried_out(stepdown, clean, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    before = clean.read_bytes()
    result = stepdown("lint", clean.name, *words)
    assert result.code == code
    assert message in result.err
    assert clean.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["clean.onnx"]


def test_a_file_that_is_no_model(stepdown, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"hello")
    assert stepdown("lint", tmp_path / "model.onnx", "--for", "tensorrt").code == 8
    assert stepdown("lint", tmp_path / "missing.onnx", "--for", "tensorrt").code == 8
