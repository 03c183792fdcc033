"""What passes ask of a graph."""

import onnx
import onnx_ir as ir
import pytest

from exporter.passes.graph import only_user


def _find(body: str) -> ir.Node | None:
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[n] x, bool c) => (float[n] y) {{ v = Neg(x)  {body} }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    value = next(node for node in model.graph if node.op_type == "Neg").outputs[0]
    return only_user(value, "Relu", "Abs")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("y = Relu(v)", "Relu"),
        ("y = Sqrt(v)", None),
        ("a = Relu(v)  y = Add(a, v)", None),
        (
            "y = If(c)<then_branch = a () => (float[n] p) { p = Relu(v) }, "
            "else_branch = b () => (float[n] q) { q = Sqrt(x) }>",
            None,
        ),
    ],
)
def test_the_only_user_is_one_node_beside_the_value(body, found):
    node = _find(body)
    assert (node.op_type if node is not None else None) == found
