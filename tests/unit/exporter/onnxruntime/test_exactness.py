import numpy as np
import onnx
import pytest

from exporter.onnxruntime.exactness import is_exact_anywhere, rounds_where_it_can


def _save(path, text, **arrays):
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]> {text}')
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(proto, path)
    return path


_DYNAMIC = "g (float[n, 2] x) => (float[n, 2] y) { y = com.microsoft.DynamicQuantizeMatMul(x, w, s) }"
_DEQUANTISED = """g (float[n, 2] x) => (float[n, 2] y) { d = DequantizeLinear<axis=1>(w, s)
 y = MatMul(x, d) }"""


@pytest.mark.parametrize("text", [_DYNAMIC, _DEQUANTISED])
@pytest.mark.parametrize(("largest", "exact"), [(64, True), (65, False)])
def test_full_range_weights_are_not_exact_everywhere(tmp_path, text, largest, exact):
    weight = np.array([[1, -largest], [3, 4]], np.int8)
    path = _save(tmp_path / "m.onnx", text, w=weight, s=np.ones(2, np.float32))
    assert is_exact_anywhere(path) is exact


def test_a_table_of_integers_multiplies_nothing(tmp_path):
    text = """g (int64[n] ids) => (float[n, 2] y) { rows = Gather<axis=0>(w, ids)
 y = Cast<to=1>(rows) }"""
    assert is_exact_anywhere(_save(tmp_path / "m.onnx", text, w=np.full((3, 2), 127, np.int8)))


def test_unsigned_weights_are_exact(tmp_path):
    weight = np.array([[1, 255], [3, 4]], np.uint8)
    path = _save(tmp_path / "m.onnx", _DEQUANTISED, w=weight, s=np.ones(2, np.float32))
    assert is_exact_anywhere(path)


@pytest.mark.parametrize(("level", "rounds"), [(1, False), (4, True)])
def test_blocks_of_weights_say_where_their_activations_are_rounded(tmp_path, level, rounds):
    text = f"""g (float[n, 32] x) => (float[n, 2] y)
    {{ y = com.microsoft.MatMulNBits<K=32, N=2, bits=8, block_size=32, accuracy_level={level}>(x, w, s) }}"""
    weight, scales = np.full((2, 1, 32), 200, np.uint8), np.ones((2, 1), np.float32)
    path = _save(tmp_path / "m.onnx", text, w=weight, s=scales)
    assert rounds_where_it_can(path) is rounds
    assert is_exact_anywhere(path)


def _write_branches(product):
    """Return a graph with nothing but a product in each branch."""
    return f"""g (float[n, 32] x, bool wanted) => (float[n, 2] y) {{ y = If(wanted)<
    then_branch = t () => (float[n, 2] a) {{ a = com.microsoft.{product} }},
    else_branch = e () => (float[n, 2] b) {{ b = com.microsoft.{product} }}> }}"""


@pytest.mark.parametrize("own", [False, True])
def test_products_of_branches_count_wherever_their_weights_lie(tmp_path, own):
    weight, scales = np.full((32, 2), 127, np.int8), np.ones(2, np.float32)
    path = _save(tmp_path / "m.onnx", _write_branches("DynamicQuantizeMatMul(x, w, s)"), w=weight, s=scales)
    if own:
        proto = onnx.load(path)
        for attribute in proto.graph.node[0].attribute:
            attribute.g.initializer.extend(proto.graph.initializer)
        del proto.graph.initializer[:]
        onnx.save(proto, path)
    assert not is_exact_anywhere(path)


def test_blocks_of_weights_in_branches_round_too(tmp_path):
    product = "MatMulNBits<K=32, N=2, bits=8, block_size=32, accuracy_level=4>(x, w, s)"
    weight, scales = np.full((2, 1, 32), 200, np.uint8), np.ones((2, 1), np.float32)
    assert rounds_where_it_can(_save(tmp_path / "m.onnx", _write_branches(product), w=weight, s=scales))
