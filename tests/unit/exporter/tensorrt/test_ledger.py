"""What the ledger says of weights for TensorRT, by how far the export went and what became of the sparse plan."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporter.reporting.report import Ratio
from exporter.tensorrt.candidates import TrtSpec, TrtWorkshop
from exporter.tensorrt.graph import prepare_for_tensorrt
from exporter.tensorrt.ledger import DENSE_OR_SPARSE, SPARSE_KERNEL, Shipped, make_ledger
from exporter.tensorrt.plans import Plans
from runtimes.errors import UnsupportedModel

WIDTH = 32
HALF = TrtSpec(arithmetic="float", rest="fp16")
SPARSE = replace(HALF, sparse=True)


@pytest.fixture
def workshop(tmp_path):
    """A chain of linears: 2:4 along the inputs, along the outputs, dense, unstructured; and one on the left."""
    random = np.random.default_rng(0)
    dense = random.standard_normal((WIDTH, WIDTH)).astype(np.float32)
    order = random.random((WIDTH // 4, 4, WIDTH)).argsort(axis=1)
    two_four = dense * (order < 2).reshape(WIDTH, WIDTH)
    weights = {
        "along": two_four,
        "across": two_four.T.copy(),
        "dense": dense,
        "random": dense * (random.random(dense.shape) < 0.5),
        "left": two_four.T.copy(),
    }
    proto = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 19]>
    chain (float[{WIDTH}, {WIDTH}] x) => (float[{WIDTH}, {WIDTH}] y) {{
        a = MatMul (x, along)  b = MatMul (a, across)  c = MatMul (b, dense)  d = MatMul (c, random)
        y = MatMul (left, d)
    }}""")
    for node, name in zip(proto.graph.node, weights, strict=True):
        node.name = name
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(proto, tmp_path / "traced.onnx")
    prepared = prepare_for_tensorrt(tmp_path / "traced.onnx", tmp_path / "prepared.onnx")
    return TrtWorkshop(prepared=prepared, directory=tmp_path, make_plan=None, magnitudes={})


@pytest.fixture
def rows(workshop):
    def make(chosen=HALF, plans=None, *, asked=True, tier="ran", speeds=None):
        shipped = Shipped(chosen=chosen, plans=plans or Plans(), asked=asked, tier=tier, speeds=speeds or {})
        return {row.layer: row for row in make_ledger(workshop, shipped)}

    return make


def _speeds(**ratios):
    names = {"dense": HALF.name, "sparse": SPARSE.name}
    return {names[one]: {"8x128": Ratio(ratio=ratio, low=None, high=None)} for one, ratio in ratios.items()}


def test_a_weight_is_eligible_along_its_inputs_alone(rows):
    found = rows(asked=False)
    assert {name: row.pattern for name, row in found.items()} == {
        "along": "2:4", "across": "unstructured", "dense": "dense", "random": "unstructured", "left": "2:4",
    }  # fmt: skip
    assert (found["along"].use, found["along"].why) == ("GPU 2:4", "eligible; --sparse-weights was not given")
    assert found["across"].why == found["random"].why == "TensorRT has kernels for 2:4 alone"
    assert (found["dense"].why, found["left"].why) == ("hardly any zeros", "its weight is on the left")
    assert {row.kernel for row in found.values()} == {"dense"}


def test_bytes_are_those_of_the_file_that_ships(rows):
    plain = TrtSpec(arithmetic="float", rest="fp32", plain=True)
    for chosen, width in ((plain, 4), (HALF, 2)):
        row = rows(chosen)["along"]
        assert row.dense_bytes == row.shipped_bytes == width * WIDTH * WIDTH


@pytest.mark.parametrize(
    ("tier", "why"), [("lowered", "no plan was built"), ("built", "the plan without sparse kernels ships")]
)
def test_what_never_ran_is_not_timed(rows, tier, why):
    assert rows(tier=tier)["along"].why == f"eligible; not timed: {why}"


def test_a_sparse_plan_that_never_ran_claims_no_kernel(rows):
    row = rows(SPARSE, tier="built")["along"]
    assert (row.kernel, "not timed" in row.why) == (DENSE_OR_SPARSE, True)


def test_what_tensorrt_picked_is_said_with_what_the_whole_plan_gains(rows):
    speeds = _speeds(dense=2.0, sparse=3.0)
    picked = rows(SPARSE, Plans(left_dense={SPARSE: ()}), speeds=speeds)["along"]
    assert (picked.kernel, picked.is_sparse) == (SPARSE_KERNEL, True)
    assert picked.why == (
        "TensorRT picked a sparse kernel; the plan with sparse kernels is 1.50 times as fast as without"
    )
    unpicked = rows(SPARSE, Plans(left_dense={SPARSE: ("along",)}))["along"]
    assert (unpicked.kernel, unpicked.why) == (
        "dense", "eligible; TensorRT picked a dense kernel; not timed against its like",
    )  # fmt: skip


def test_why_no_sparse_plan_ships(rows):
    won = rows(speeds=_speeds(dense=2.0, sparse=1.0))["along"].why
    assert won == "eligible; all in all fp16 won; the plan with sparse kernels is 0.50 times as fast as without"
    refused = Plans(refused={SPARSE: UnsupportedModel("TensorRT did not pick what was asked")})
    assert rows(plans=refused)["along"].why.endswith("is out: TensorRT did not pick what was asked")


def test_a_model_without_zeros_has_no_ledger(tmp_path):
    proto = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 19]>
    one (float[n, {WIDTH}] x) => (float[n, {WIDTH}] y) {{ y = MatMul (x, w) }}""")
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((WIDTH, WIDTH), np.float32), "w"))
    onnx.save(proto, tmp_path / "traced.onnx")
    prepared = prepare_for_tensorrt(tmp_path / "traced.onnx", tmp_path / "prepared.onnx")
    workshop = TrtWorkshop(prepared=prepared, directory=tmp_path, make_plan=None, magnitudes={})
    assert make_ledger(workshop, Shipped(chosen=HALF, plans=Plans(), asked=True, tier="ran", speeds={})) == ()
