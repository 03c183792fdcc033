"""Activations in every spelling: what they are is found by computing them."""

import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from exporter.passes.activations import find_activation

_HALF = """half = Constant<value_float=0.5>()
one = Constant<value_float=1.0>()
root = Constant<value_float=1.4142135>()
"""
_TANH = """c = Constant<value_float=0.044715>()
s = Constant<value_float=0.7978845608>()
p = Constant<value_float=3.0>()
"""


def _open(body: str, *, lifted: bool = False) -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["" : 24, "com.microsoft" : 1]>
    g (float[n, 8] x) => (float[n, 8] y) {{
      v = Neg(x)
      {body}
    }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    if lifted:
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return model


def _find(body: str, *, lifted: bool = False) -> tuple[str | None, str]:
    model = _open(body, lifted=lifted)
    value = next(node for node in model.graph if node.op_type == "Neg").outputs[0]
    output, name = find_activation(value)
    return output.name, name


@pytest.mark.parametrize("lifted", [False, True])
@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("y = Relu(v)", "relu"),
        ("y = Gelu(v)", "gelu"),
        ('y = Gelu<approximate="tanh">(v)', "gelu_tanh"),
        ("y = com.microsoft.Gelu(v)", "gelu"),
        ("y = com.microsoft.FastGelu(v)", "gelu_tanh"),
        ("a = Sigmoid(v)\n y = Mul(v, a)", "silu"),
        ("a = Sigmoid(v)\n y = Mul(a, v)", "silu"),
        ("y = Swish(v)", "silu"),
        (_HALF + "a = Div(v, root)\n b = Erf(a)\n d = Add(b, one)\n e = Mul(v, d)\n y = Mul(e, half)", "gelu"),
        (_HALF + "a = Div(v, root)\n b = Erf(a)\n d = Add(one, b)\n e = Mul(half, v)\n y = Mul(e, d)", "gelu"),
        (
            _HALF + _TANH + "a = Pow(v, p)\n b = Mul(a, c)\n d = Add(v, b)\n e = Mul(d, s)\n f = Tanh(e)\n"
            "h = Add(f, one)\n i = Mul(v, half)\n y = Mul(i, h)",
            "gelu_tanh",
        ),
        (
            _HALF + _TANH + "a = Mul(v, v)\n b = Mul(a, v)\n k = Mul(b, c)\n d = Add(v, k)\n e = Mul(d, s)\n"
            "f = Tanh(e)\n h = Add(f, one)\n i = Mul(v, h)\n y = Mul(i, half)",
            "gelu_tanh",
        ),
    ],
)
def test_a_spelling_is_recognised(body, name, lifted):
    assert _find(body, lifted=lifted) == ("y", name)


@pytest.mark.parametrize(
    "body",
    [
        "y = Sigmoid(v)",
        "y = Swish<alpha=1.702>(v)",
        "a = Sigmoid(v)\n b = Mul(v, a)\n y = Add(b, a)",
        "y = Add(v, x)",
        "a = Relu(v)\n y = Add(a, v)",
        "six = Constant<value_float=6.0>()\n a = Relu(v)\n b = Sub(v, six)\n d = Relu(b)\n y = Sub(a, d)",
        "k = Constant<value_float=1.702>()\n a = Mul(v, k)\n b = Sigmoid(a)\n y = Mul(v, b)",
        _HALF + "a = Div(v, root)\n b = Erf(a)\n d = Add(b, one)\n e = Mul(v, d)\n f = Mul(e, half)\n y = Add(f, b)",
    ],
)
def test_what_is_something_else_or_read_elsewhere_stays(body):
    assert _find(body) == ("v", "none")


def test_a_value_that_is_an_output_too_stays():
    model = _open("y = Relu(v)")
    value = next(node for node in model.graph if node.op_type == "Neg").outputs[0]
    model.graph.outputs.append(value)
    assert find_activation(value) == (value, "none")


@pytest.mark.parametrize(("ones", "found"), [("[1]", True), ("[1, 1]", True), ("[1, 1, 1]", False)])
def test_a_constant_with_more_axes_than_the_value_is_no_number(ones, found):
    """It would give the answer its own axes."""
    constants = f"half = Constant<value=float{ones} {{0.5}}>() one = Constant<value=float{ones} {{1.0}}>()\n"
    root = "root = Constant<value_float=1.4142135>()\n"
    body = constants + root + "a = Div(v, root)\n b = Erf(a)\n d = Add(b, one)\n e = Mul(v, d)\n y = Mul(e, half)"
    model = _open(body)
    value = next(node for node in model.graph if node.op_type == "Neg").outputs[0]
    value.shape = ir.Shape(["n", 8])
    assert find_activation(value)[1] == ("gelu" if found else "none")


@pytest.mark.parametrize("other", ["v", "x"])
def test_an_activation_in_a_branch_stays_there(other):
    then = "then_branch = a () => (float[n, 8] p) { p = Relu(v) }"
    otherwise = f"else_branch = b () => (float[n, 8] q) {{ q = Neg({other}) }}"
    assert _find(f"c = Constant<value=bool {{1}}>()\n y = If(c)<{then}, {otherwise}>") == ("v", "none")
