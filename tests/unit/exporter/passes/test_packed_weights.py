"""Weights of few levels take 1, 2 or 4 bits in the file and answer the same."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from exporter.inspecting.model import inspect_model
from exporter.onnxruntime.candidates import CandidateSpec, FloatGraphs, Workshop
from exporter.onnxruntime.exactness import is_exact_anywhere
from exporter.passes.packed_weights import find_few_levels, pack_tables, pack_weights, read_packed
from exporter.sparsity.stored_bytes import count_stored
from runtimes.isa import named

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 5, 64)).astype(np.float32)
IDS = RANDOM.integers(0, 40, (3, 5))


def make_levels(rows, columns, bits, groups=1):
    """Float [rows, columns] of few levels, with a scale for each group of a row."""
    low, high = {1: (0, 1), 2: (-1, 1), 4: (-8, 7)}[bits]
    levels = RANDOM.integers(low, high + 1, (rows, columns))
    levels = levels * 2 - 1 if bits == 1 else levels
    scales = RANDOM.uniform(0.05, 0.1, (rows, groups))
    return (levels * np.repeat(scales, columns // groups, axis=1)).astype(np.float32)


def make_model(body, **arrays):
    text = f"""<ir_version: 10, opset_import: ["" : 23]>
    g (float[batch, sequence, 64] x, int64[batch, sequence] ids) => (float[batch, sequence, c] y) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    for name, array in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def run(model):
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    taken = {given.name for given in session.get_inputs()}
    return session.run(None, {name: array for name, array in {"x": X, "ids": IDS}.items() if name in taken})[0]


def build(model, folder, spec, isa="amx"):
    path = folder / "float.onnx"
    onnx.save(ir.to_proto(model), path)
    graphs = FloatGraphs(traced=path, fused=path, merged=path)
    workshop = Workshop(graphs=graphs, directory=folder / isa, isa=named(isa), make_plan=None)
    return workshop.build(spec).path


FORMS = [(1, 1), (2, 1), (4, 2), (4, 1)]


@pytest.mark.parametrize(("bits", "groups"), FORMS)
def test_a_product_reads_what_was_packed(bits, groups):
    weight = make_levels(48, 64, bits, groups)
    model = make_model("m = MatMul(x, w)  y = Add(m, b)", w=weight.T, b=np.ones(48, np.float32))
    before = run(model)
    found = find_few_levels(model)
    assert {name: few.bits for name, few in found.items()} == {"w": bits}
    assert pack_weights(model, found) == 1
    assert "w" not in model.graph.initializers
    assert model.graph.initializers["w_codes"].const_value.nbytes == 48 * 64 * bits // 8
    np.testing.assert_allclose(run(model), before, rtol=1e-5, atol=1e-6)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    product = next(node for node in model.graph if node.op_type == "MatMul")
    array, width = read_packed(product, 1)
    assert width == bits
    np.testing.assert_allclose(array, weight.T, rtol=1e-6)


@pytest.mark.parametrize(("bits", "groups"), FORMS)
def test_a_table_is_unpacked_row_by_row(bits, groups):
    table = make_levels(40, 64, bits, groups)
    table[7] = 0  # padding
    model = make_model("y = Gather(t, ids)", t=table)
    before = run(model)
    found = find_few_levels(model)
    assert pack_tables(model, found) == 1
    assert model.graph.initializers["t_codes"].const_value.nbytes == 40 * 64 * bits // 8
    assert "t" not in model.graph.initializers
    np.testing.assert_allclose(run(model), before, rtol=1e-6, atol=1e-9)
    assert model.graph.outputs[0].name == "y"


def test_a_gemm_with_a_transposed_weight():
    body = "s = Constant<value_ints=[-1, 64]>()  f = Reshape(x, s)  g = Gemm<transB=1>(f, w)  y = Reshape(g, r)"
    model = make_model(body, w=make_levels(48, 64, 2), r=np.array([3, 5, 48]))
    before = run(model)
    assert pack_weights(model, find_few_levels(model)) == 1
    np.testing.assert_allclose(run(model), before, rtol=1e-5, atol=1e-6)


def test_a_table_that_is_multiplied_with_too_is_packed_for_both():
    table = make_levels(40, 64, 2)
    model = make_model("r = Gather(t, ids)  a = Add(r, x)  w = Transpose<perm=[1, 0]>(t)  y = MatMul(a, w)", t=table)
    before = run(model)
    found = find_few_levels(model)
    assert pack_tables(model, found) == pack_weights(model, found) == 1
    np.testing.assert_allclose(run(model), before, rtol=1e-4, atol=1e-5)
    assert not any(value.const_value.nbytes > 1024 for value in model.graph.initializers.values())


def test_other_weights_stay():
    model = make_model("y = MatMul(x, w)", w=RANDOM.normal(size=(64, 48)).astype(np.float32))
    assert not find_few_levels(model)
    assert pack_tables(model, {}) == pack_weights(model, {}) == 0
    assert not model.functions


def test_a_form_that_holds_other_numbers_stays():
    model = make_model("y = MatMul(x, w)", w=make_levels(48, 64, 2).T)
    found = find_few_levels(model)
    other = make_model("y = MatMul(x, w)", w=make_levels(48, 64, 2).T)
    assert pack_weights(other, found) == 0
    assert "w" in other.graph.initializers


@pytest.mark.parametrize(("bits", "groups"), FORMS)
@pytest.mark.parametrize("isa", ["amx", "avx2"])
def test_int8_products_read_what_was_packed(bits, groups, isa, tmp_path):
    model = make_model("m = MatMul(x, w)  y = Add(m, b)", w=make_levels(48, 64, bits, groups).T, b=np.ones(48, "f4"))
    before = run(model)
    path = build(model, tmp_path, CandidateSpec(arithmetic="int8-dynamic"), isa)
    made = ir.load(path)
    stored = {name: value.const_value.nbytes for name, value in made.graph.initializers.items()}
    assert stored["w_codes"] == 48 * 64 * bits // 8
    assert sum(stored.values()) < stored["w_codes"] + 48 * 4 * (groups + 3)
    after = run(made)
    assert np.abs(after - before).max() < 0.03 * np.abs(before).max()
    assert is_exact_anywhere(path) == (isa == "avx2")
    assert count_stored(path, tmp_path / "float.onnx")["MatMul_0"] >= stored["w_codes"]


def test_what_is_unpacked_for_a_branch_tells_where_it_is_exact(tmp_path):
    branches = """then_branch = t () => (float[batch, sequence, c] a) { a = MatMul(x, w) },
        else_branch = e () => (float[batch, sequence, c] b) { b = MatMul(x, v) }"""
    weights = {name: make_levels(48, 64, 2).T for name in ("w", "v")}
    model = make_model(f"n = Size(x)  k = Cast<to=9>(n)  y = If(k)<{branches}>", **weights)
    for number, node in enumerate(model.graph.all_nodes()):
        node.name = f"n{number}"
    path = build(model, tmp_path, CandidateSpec(arithmetic="int8-dynamic"))
    assert not [value for value in ir.load(path).graph.initializers.values() if value.dtype == ir.DataType.FLOAT
                and value.const_value.size > 1000]  # fmt: skip
    assert not is_exact_anywhere(path)
    np.testing.assert_allclose(run(ir.load(path)), run(model), atol=0.1)


@pytest.mark.parametrize("arithmetic", ["weights-8", "weights-4"])
def test_blocks_do_not_round_them_again(arithmetic, tmp_path):
    arrays = {"w": make_levels(64, 64, 2).T, "v": RANDOM.normal(size=(64, 48)).astype(np.float32)}
    model = make_model("m = MatMul(x, w)  y = MatMul(m, v)", **arrays)
    made = ir.load(build(model, tmp_path, CandidateSpec(arithmetic=arithmetic)))
    assert [node.op_type for node in made.graph] == ["Unpack2", "Mul", "MatMul", "MatMulNBits"]


def test_plain_float_stays_as_it_was_traced(tmp_path):
    model = make_model("y = MatMul(x, w)", w=make_levels(48, 64, 2).T)
    assert build(model, tmp_path, CandidateSpec(arithmetic="float", plain=True)) == tmp_path / "float.onnx"
    packed = build(model, tmp_path, CandidateSpec(arithmetic="float"))
    assert packed.stat().st_size < 0.5 * (tmp_path / "float.onnx").stat().st_size


@pytest.mark.parametrize("arithmetic", ["float", "int8-dynamic"])
def test_inspect_shows_the_weights_and_not_their_bytes(arithmetic, tmp_path):
    arrays = {"w": make_levels(48, 64, 2).T, "t": make_levels(40, 64, 1)}
    model = make_model("r = Gather(t, ids)  a = Add(r, x)  y = MatMul(a, w)", **arrays)
    found = inspect_model(Path(build(model, tmp_path, CandidateSpec(arithmetic=arithmetic))))
    table, weight = found.layers
    assert (table.op, table.shape, table.dtype, table.zeros) == ("Gather", (40, 64), "int1", 0)
    assert (weight.shape, weight.dtype) == ((64, 48), "int2")
    assert weight.zeros == pytest.approx((arrays["w"] == 0).mean(), abs=1e-5)
    assert weight.quantise == "is int2"
    assert 40 * 64 + 48 * 64 <= found.parameters < 40 * 64 + 48 * 64 + 600
