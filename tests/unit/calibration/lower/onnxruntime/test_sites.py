"""What belongs to a linear: its bias, where nothing else could read the sum."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from calibration.linears import find_linears
from calibration.lower.onnxruntime.sites import Site, find_sites


def _find(body: str) -> Site:
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[n, 8] x, bool c) => (float[n, 4] y) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    for name, shape in {"w": (8, 4), "b": (4,), "column": (4, 1)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    proto.graph.node[0].name = "linear"
    model = ir.from_proto(proto)
    (site,) = find_sites(model, find_linears(model))
    return site


def test_the_sum_is_what_the_linear_gives():
    site = _find("m = MatMul(x, w)  y = Add(b, m)")
    assert (site.output.name, site.bias is None) == ("y", False)


def test_a_sum_with_anything_else_is_none_of_it():
    site = _find("m = MatMul(x, w)  y = Add(m, column)")
    assert (site.output.name, site.bias) == ("m", None)


def test_a_sum_in_a_branch_stays_there():
    then = "then_branch = a () => (float[n, 4] p) { p = Add(m, b) }"
    otherwise = "else_branch = d () => (float[n, 4] q) { q = Constant<value=float[1, 4] {0, 0, 0, 0}>() }"
    site = _find(f"m = MatMul(x, w)  y = If(c)<{then}, {otherwise}>")
    assert (site.output.name, site.bias) == ("m", None)
