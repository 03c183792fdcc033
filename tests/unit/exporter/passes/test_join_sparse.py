"""Sparse layers joined over one input answer what they answered, to the bit, and are still told apart by name."""

import numpy as np
import onnx_ir as ir
import pytest

from exporter.passes.join_sparse import join_sparse
from exporter.passes.sparse_linears import is_sparse, list_sparse, replace_linears
from tests.unit.exporter.passes.sparse_models import make_model, run_model

ATTENTION = "q = MatMul(x, v)\n k = MatMul(x, key)\n n = MatMul(x, key)\n y = Concat<axis=-1>(q, k, n)"
BIASED = "q = MatMul(x, v)\n k = MatMul(x, key)\n o = Add(q, c)\n y = Concat<axis=-1>(o, k)"


def make_sparse(body, *layers, values="int8", block=(1, 1), **others):
    model = make_model(body)
    replace_linears(model, {f"MatMul_{place}": block for place in layers} | others, values=values)
    return model


def list_nodes(model):
    return [node for node in model.graph if is_sparse(node)]


@pytest.mark.parametrize("values", ["int8", "float32"])
@pytest.mark.parametrize("block", [(1, 1), (4, 1), (4, 4)])
@pytest.mark.parametrize(("body", "layers"), [(ATTENTION, (0, 1, 2)), (BIASED, (0, 1))], ids=["plain", "biased"])
def test_layers_over_one_input_become_one(body, layers, values, block):
    model = make_sparse(body, *layers, values=values, block=block)
    before = run_model(model)
    assert join_sparse(model) == 1
    assert len(list_nodes(model)) == 1
    np.testing.assert_array_equal(run_model(model)[0], before[0])


def test_the_names_of_the_layers_stay_in_the_file(tmp_path):
    model = make_sparse(ATTENTION, 0, 1, 2)
    assert join_sparse(model) == 1
    ir.save(model, tmp_path / "model.onnx")
    assert list_sparse(ir.load(tmp_path / "model.onnx")) == {"MatMul_0", "MatMul_1", "MatMul_2"}


def test_layers_that_share_their_weights_share_the_joined_ones():
    body = """q = MatMul(x, v)  k = MatMul(x, key)  j = Concat<axis=-1>(q, k)
    h = Neg(x)  r = MatMul(h, v)  s = MatMul(h, key)  i = Concat<axis=-1>(r, s)  y = Add(i, j)"""
    model = make_sparse(body, 0, 1, 4, 5)
    assert join_sparse(model) == 2
    first, second = list_nodes(model)
    assert list(first.inputs[1:]) == list(second.inputs[1:])
    assert set(list_sparse(model)) == {"MatMul_0", "MatMul_1", "MatMul_4", "MatMul_5"}


@pytest.mark.parametrize(
    ("body", "blocks"),
    [
        ("q = MatMul(x, v)\n h = Neg(x)\n k = MatMul(h, v)\n y = Add(q, k)", {"MatMul_0": (1, 1), "MatMul_2": (1, 1)}),
        ("q = MatMul(x, v)\n k = MatMul(x, key)\n p = Relu(k)\n y = Concat<axis=-1>(q, p)", {}),
        ("q = MatMul(x, wide)\n k = MatMul(x, key)\n n = MatMul(x, key)\n y = Concat<axis=-1>(q, k, n)", {}),
        ("q = MatMul(x, v)\n k = MatMul(x, key)\n y = Concat<axis=-1>(q, k)", {"MatMul_1": (1, 4)}),
        ("q = MatMul(x, v)\n k = MatMul(x, key)\n y = Concat<axis=-1>(q, k)", {"MatMul_1": (4, 1)}),
        (
            "q = MatMul(x, odd)\n k = MatMul(x, key)\n y = Concat<axis=-1>(q, k)",
            {"MatMul_0": (4, 1), "MatMul_1": (4, 1)},
        ),
    ],
    ids=["other inputs", "an activation", "too wide", "other columns", "other blocks", "a block in both"],
)
def test_what_differs_stays_alone(body, blocks):
    model = make_sparse(body, 0, 1, **blocks)
    count = len(list_nodes(model))
    assert count > 1
    assert join_sparse(model) == 0
    assert len(list_nodes(model)) == count


def test_of_three_those_join_that_are_stored_alike():
    model = make_sparse(ATTENTION, 0, 2, MatMul_1=(4, 1))
    before = run_model(model)
    assert join_sparse(model) == 1
    assert len(list_nodes(model)) == 2
    np.testing.assert_array_equal(run_model(model)[0], before[0])


def test_a_layer_with_a_norm_behind_it_stays_alone():
    model = make_sparse("q = MatMul(x, v)\n k = MatMul(x, v)\n y = Add(q, k)", 0, 1)
    list_nodes(model)[0].attributes.add(ir.AttrFloat32("epsilon", 1e-5))
    assert join_sparse(model) == 0
