"""What the proof notices, on graphs made by hand: the rules are not asked."""

import numpy as np
import pytest
from onnx import TensorProto

from exporter.lint.proof import prove
from runtimes.errors import ParityFailure, UnsupportedModel
from tests.unit.exporter.lint.quantised_graphs import K, draw, node, save

FLOAT, HALF, TEXT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.STRING
BATCHES = [{"x": draw(4, K)}]
ARRAYS = {
    "one": np.float32(1.0), "two": np.float32(2.0), "shift": np.float32(0.001), "mask": np.arange(K) % 3 > 0,
    "other": np.arange(K) % 3 > 1, "inf": np.float32(-np.inf), "text": np.array(["a"], object),
    "words": np.array(["b"], object),
}  # fmt: skip
RELU = [node("Relu", ["x"], "y")]
PASS = [node("Mul", ["x", "one"], "y")]
TWICE = [node("Mul", ["x", "two"], "y")]
NEAR = [node("Add", ["x", "shift"], "y")]


def _prove(folder, *graphs, kind=FLOAT, **options):
    paths = [save(folder / f"{number}.onnx", nodes, {"y": (kind, None)}, ARRAYS) for number, nodes in enumerate(graphs)]
    words = {"exact": False, "masked": False, "allowed_loss": 0.001} | options
    return prove(*paths, BATCHES, **words)


def _fill(mask, source="x"):
    return [node("Where", [mask, source, "inf"], "y")]


def test_a_graph_that_is_as_near_as_the_old_one_passes(tmp_path):
    (row,) = _prove(tmp_path, NEAR, PASS, PASS)
    assert (row.output, row.shape) == ("y", (4, K))
    assert row.before < row.after == pytest.approx(1)
    assert row.size_after == pytest.approx(1)


def test_another_size_in_the_same_direction_is_noticed(tmp_path):
    with pytest.raises(ParityFailure, match=r"2\.00 times as large") as caught:
        _prove(tmp_path, NEAR, TWICE, PASS)
    assert "--allow-loss 0.9" in caught.value.cure
    assert _prove(tmp_path, NEAR, TWICE, PASS, allowed_loss=1.0)


@pytest.mark.parametrize("before", [RELU, [node("Mul", ["x", "shift"], "y")]])
def test_a_reference_that_lost_what_the_old_graph_had_is_noticed(tmp_path, before):
    """The rewritten graph is next to it, because both lost the same."""
    with pytest.raises(ParityFailure, match="more than rounding explains") as caught:
        _prove(tmp_path, before, NEAR, PASS)
    assert "compare both with the float model" in caught.value.cure
    assert _prove(tmp_path, before, NEAR, PASS, masked=True)


def test_another_type_is_noticed(tmp_path):
    half = [*NEAR[:0], node("Cast", ["x"], "y", to=HALF)]
    old = save(tmp_path / "old.onnx", PASS, {"y": (FLOAT, None)}, ARRAYS)
    new = save(tmp_path / "new.onnx", half, {"y": (HALF, None)}, ARRAYS)
    with pytest.raises(ParityFailure, match="turns an output of float32 into float16"):
        prove(old, new, old, BATCHES, exact=False, masked=False, allowed_loss=0.001)


def test_infinities_are_compared_by_place(tmp_path):
    (row,) = _prove(tmp_path, _fill("mask"), _fill("mask"), _fill("mask"))
    assert row.before == row.after == pytest.approx(1)
    with pytest.raises(ParityFailure, match="answers NaN"):
        _prove(tmp_path, _fill("mask"), _fill("other"), _fill("mask"))


def test_text_is_the_same_or_not(tmp_path):
    same, other = [node("Identity", ["text"], "y")], [node("Identity", ["words"], "y")]
    (row,) = _prove(tmp_path, same, same, same, kind=TEXT, exact=True)
    assert (row.before, row.after) == (1.0, 1.0)
    with pytest.raises(ParityFailure, match=r"from 1\.0000 to 0\.0000"):
        _prove(tmp_path, same, other, same, kind=TEXT)


def test_inputs_that_no_form_of_the_graph_takes_are_blamed(tmp_path):
    nodes = [node("Reshape", ["x", "shape"], "y")]
    arrays = {"shape": np.array([7, 7])}
    path = save(tmp_path / "model.onnx", nodes, {"y": (FLOAT, None)}, arrays)
    with pytest.raises(UnsupportedModel, match="rewritten or not") as caught:
        prove(path, path, path, BATCHES, exact=False, masked=False, allowed_loss=0.001)
    assert "make_dynamic_shape_fixed" in caught.value.cure
