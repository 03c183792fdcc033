"""A layer by itself: the model of it, and its two forms timed against each other."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from exporter.sparsity.costs import CostTable, LinearCase, make_linear, resolve_axes
from exporter.sparsity.kept_gains import KeptGains
from exporter.weights.zeros import describe_sparsity
from runtimes.sparse.library import why_unavailable
from runtimes.sparse.reference import ACTIVATIONS, activate

needs_kernels = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))

_PRODUCTS = ("MatMul", "MatMulIntegerToFloat", "SparseLinear", "SparseLinearInt8")


def _case(share: float = 0.95, *, activation="none", axes=("batch", "sequence", 64), width: int = 48) -> LinearCase:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((axes[-1], width)).astype(np.float32)
    weight[rng.random(weight.shape) < share] = 0
    return LinearCase(weight=weight, bias=np.ones(width, np.float32), activation=activation, axes=axes)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_model_of_a_layer_is_the_layer(activation):
    case = _case(activation=activation)
    model = ir.to_proto(make_linear(case))
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(1).standard_normal((2, 3, 64)).astype(np.float32)
    (got,) = ReferenceEvaluator(model).run(None, {"x": x})
    expected = activate((x @ case.weight + 1).astype(np.float64), activation)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_axes_are_batch_sequence_or_what_they_are():
    assert resolve_axes(("batch", "sequence", 64), (8, 128)) == (8, 128, 64)
    assert resolve_axes(("batch", 64), (8, 128)) == (8, 64)
    assert resolve_axes(("sequence", 64), (8, 128)) == (128, 64)
    assert resolve_axes(("batch", "unk__0", 64), (8, 128)) == (8, 128, 64)
    assert resolve_axes((4, 64), (8, 128)) == (4, 64)


def test_a_matrix_of_tokens_has_a_row_for_each():
    """As a Reshape to [-1, width] leaves it: shape inference calls the axis unk__0, or nothing."""
    assert resolve_axes(("unk__0", 64), (8, 128)) == (1024, 64)
    assert resolve_axes(("None", 64), (8, 128)) == (1024, 64)


@pytest.fixture
def table(tmp_path):
    """Make a table as an export does: it writes to a folder of its own, and keeps what it measured in one file."""

    def call(name: str = "layers", *, shapes=((1, 2),), per_token=False, model_bytes=0) -> CostTable:
        return CostTable(
            directory=tmp_path / name,
            shapes=shapes,
            threads=1,
            weight_bits=7,
            kept=KeptGains(tmp_path / "gains.json", {"cpu": "this"}),
            per_token=per_token,
            model_bytes=model_bytes,
        )

    return call


def _find(table: CostTable, case: LinearCase, values="float32"):
    return table.find_gain(case, describe_sparsity(case.weight.T != 0).forms[0], values)


@needs_kernels
@pytest.mark.parametrize("values", ["float32", "int8"])
def test_a_single_token_meets_as_many_layers_as_the_model_has(tmp_path, table, values):
    case = _case(0.7)
    timed = table(shapes=((1, 1), (1, 4)), per_token=True, model_bytes=4 * case.weight.nbytes + 1)
    assert set(_find(timed, case, values)) == {"1x1", "1x4"}
    counts = {}
    for path in (tmp_path / "layers").glob("*.onnx"):
        graph = onnx.load(path).graph
        names = [node.input[1] for node in graph.node if node.op_type in _PRODUCTS]
        weights = {numpy_helper.to_array(one).tobytes() for one in graph.initializer if one.name in names}
        counts[path.stem] = (len(weights), len({value.name for value in graph.input}), len(graph.output))
    assert sorted(counts.values()) == 2 * [(1, 1, 1)] + 2 * [(4, 4, 4)]
    (known,) = [json.loads(path.read_text())["gains"] for path in tmp_path.glob("gains.json")]
    assert [", 4 in turns" in name for name in sorted(known)] == [True, False]


@needs_kernels
@pytest.mark.parametrize("values", ["float32", "int8"])
def test_both_forms_are_timed_at_every_shape_and_once(tmp_path, table, values):
    timed = table(shapes=((1, 4), (2, 8)))
    case = _case(activation="gelu")
    gain = _find(timed, case, values)
    assert set(gain) == {"1x4", "2x8"}
    assert all(ratio > 0 for ratio in gain.values())
    assert _find(timed, case, values) == gain
    assert len(list(tmp_path.rglob("*-sparse.onnx"))) == 1
    ops = {node.op_type for path in tmp_path.rglob("*.onnx") for node in onnx.load(path).graph.node}
    assert ("SparseLinear" if values == "float32" else "SparseLinearInt8") in ops
    assert ("MatMul" if values == "float32" else "DynamicQuantizeMatMul") in ops


@needs_kernels
def test_a_layer_of_a_decoder_is_timed_against_what_dense_int8_is_there(tmp_path, table):
    """With a scale for every token, in several nodes; that gain is not the one of an encoder's layer."""
    case = _case()
    _find(table(), case, "int8")
    found = _find(table("decoder", per_token=True), case, "int8")
    assert all(ratio > 0 for ratio in found.values())
    (dense,) = (tmp_path / "decoder").rglob("*-dense.onnx")
    assert "ReduceMax" in {node.op_type for node in onnx.load(dense).graph.node}
    _find(table("float", per_token=True), case)
    (dense,) = (tmp_path / "float").rglob("*-dense.onnx")
    assert {node.op_type for node in onnx.load(dense).graph.node} == {"MatMul", "Add"}


@needs_kernels
def test_layers_alike_are_timed_once_and_others_by_themselves(tmp_path, table):
    timed = table()

    def count(*cases: LinearCase) -> int:
        for case in cases:
            _find(timed, case)
        return len(list(tmp_path.rglob("*-sparse.onnx")))

    assert count(_case(0.95), _case(0.951)) == 1
    assert count(_case(0.7)) == 2
    assert count(_case(0.95, width=96)) == 3
    assert count(_case(0.95, axes=("batch", 64))) == 4
    assert count(_case(0.95, activation="relu")) == 5
    assert count(replace(_case(0.95), bias=None)) == 6


# Many rows, so that the gain is far from 1: what is near is timed again.
_LONG = ((8, 128),)


@needs_kernels
def test_what_another_export_measured_is_not_timed_again(table):
    case = _case(0.99, axes=("batch", "sequence", 256), width=256)
    gain = _find(table("first", shapes=_LONG), case)
    again = table("second", shapes=(*_LONG, (4, 128)))
    assert _find(again, case)["8x128"] == gain["8x128"]
    (finding,) = again.list_findings()
    assert finding.startswith("gains of single layers: 1 measured now, 1 known from 20")


@needs_kernels
def test_two_exports_at_once_keep_what_each_measured(table):
    one, other = table("one", shapes=_LONG), table("other", shapes=_LONG)
    cases = [_case(0.99, axes=("batch", "sequence", 256), width=width) for width in (256, 320)]
    gains = [_find(one, cases[0]), _find(other, cases[1])]
    third = table("third", shapes=_LONG)
    assert [_find(third, case) for case in cases] == gains
    assert "0 measured now, 2 known" in third.list_findings()[0]
