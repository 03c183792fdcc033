"""Small attention graphs as ONNX text, and how to run them."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

HIDDEN, HEADS = 8, 2

_PROJECT = """
   {n}_m = MatMul(x, {n}_w)
   {n}_a = Add({n}_m, {n}_b)
   {n}_r = Reshape({n}_a, split)
"""

_MASK = """
   keep = Cast<to=9>(attention_mask)
   hide = Not(keep)
   hide_f = Cast<to=1>(hide)
   bias2 = Mul(hide_f, lowest)
   bias4 = Unsqueeze(bias2, axes)
   batch = Shape<start=0, end=1>(attention_mask)
   length = Shape<start=1, end=2>(attention_mask)
   full = Concat<axis=0>(batch, one, length, length)
   bias = Expand(bias4, full)
"""

# As ModernBERT's local layers: nobody looks further than ``window``; all of a short text is nearer than that.
_LOCAL_MASK = (
    _MASK.replace("bias = Expand", "padding = Expand")
    + """
   size = Squeeze(length)
   places = Range(zero, size, step)
   rows = Unsqueeze(places, axis1)
   columns = Unsqueeze(places, axis0)
   offset = Sub(rows, columns)
   distance = Abs(offset)
   far = Greater(distance, window)
   far_f = Cast<to=1>(far)
   local = Mul(far_f, lowest)
   bias = Min(padding, local)
"""
)

# The same, written by an exporter that compares floats alone.
_FLOAT_LOCAL_MASK = _LOCAL_MASK.replace(
    "far = Greater(distance, window)",
    """distance_f = Cast<to=1>(distance)
   far = Greater(distance_f, window_f)""",
)

# The same, cut out of a stored table.
_TABLE_MASK = (
    _MASK.replace("bias = Expand", "padding = Expand")
    + """
   end = Concat<axis=0>(length, length)
   local = Slice(table, axes00, end, axes23)
   bias = Min(padding, local)
"""
)

# A decoder's, which knows nothing of padding.
_CAUSAL_MASK = """
   length = Shape<start=1, end=2>(attention_mask)
   square = Concat<axis=0>(length, length)
   filled = Expand(lowest, square)
   above = Trilu<upper=1>(filled, step)
   bias = Unsqueeze(above, axes01)
"""

# As some exporters leave it: one row for all queries, which an addition broadcasts.
_ONE_ROW_MASK = """
   keep = Cast<to=9>(attention_mask)
   hide = Not(keep)
   hide_f = Cast<to=1>(hide)
   bias2 = Mul(hide_f, lowest)
   bias = Unsqueeze(bias2, axes)
"""

_DECOMPOSED = """
   q = Transpose<perm=[0, 2, 1, 3]>(q_r)
   k = Transpose<perm=[0, 2, 3, 1]>(k_r)
   v = Transpose<perm=[0, 2, 1, 3]>(v_r)
   product = MatMul(q, k)
   scaled = Mul(product, factor)
   placed = Add(scaled, position)
   scores = Add(placed, bias)
   weights = Softmax<axis=-1>(scores)
   context = MatMul(weights, v)
"""

_OPERATOR = """
   q = Transpose<perm=[0, 2, 1, 3]>(q_r)
   k = Transpose<perm=[0, 2, 1, 3]>(k_r)
   v = Transpose<perm=[0, 2, 1, 3]>(v_r)
   context = Attention<scale=0.5>(q, k, v, bias)
"""

_END = """
   back = Transpose<perm=[0, 2, 1, 3]>(context)
   joined = Reshape(back, hidden)
   out_m = MatMul(joined, out_w)
   out_a = Add(out_m, out_b)
   residual = Add(out_a, x)
   y = LayerNormalization<axis=-1>(residual, gamma, beta)
"""


def attention_model(
    *, decomposed: bool, opset: int = 23, one_row: bool = False, placed: bool = False, mask: str = "padding"
) -> ir.Model:
    """A block of attention, residual and norm: x [batch, sequence, 8], attention_mask [batch, sequence] -> y.

    ``mask`` is ``padding``, ``local`` (within 20 tokens, as are ``float local`` and ``table``) or ``causal``.
    ``placed`` adds a bias by position to the scores before the mask (sequences of 5), as MPNet does.
    """
    middle = _DECOMPOSED if decomposed else _OPERATOR
    if not placed:
        middle = middle.replace("   placed = Add(scaled, position)\n", "").replace(
            "Add(placed, bias)", "Add(scaled, bias)"
        )
    masks = {
        "padding": _ONE_ROW_MASK if one_row else _MASK,
        "local": _LOCAL_MASK,
        "float local": _FLOAT_LOCAL_MASK,
        "table": _TABLE_MASK,
        "causal": _CAUSAL_MASK,
    }
    body = masks[mask] + "".join(_PROJECT.format(n=n) for n in "qkv") + middle + _END
    text = f"""<ir_version: 10, opset_import: ["" : {opset}]>
block (float[batch, sequence, {HIDDEN}] x, int64[batch, sequence] attention_mask)
  => (float[batch, sequence, {HIDDEN}] y)
<int64[4] split = {{0, 0, {HEADS}, {HIDDEN // HEADS}}}, int64[3] hidden = {{0, 0, {HIDDEN}}},
 int64[2] axes = {{1, 2}}, int64[1] one = {{1}}, int64 zero = {{0}}, int64 step = {{1}}, int64 window = {{20}},
 int64[1] axis0 = {{0}}, int64[1] axis1 = {{1}}, int64[2] axes01 = {{0, 1}}, int64[2] axes00 = {{0, 0}},
 int64[2] axes23 = {{2, 3}}, float window_f = {{20}}, float lowest = {{-3.4e38}}, float factor = {{0.5}}>
{{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    generator = np.random.default_rng(0)
    for name in "qkv":
        _add(proto, f"{name}_w", generator.standard_normal((HIDDEN, HIDDEN)))
        _add(proto, f"{name}_b", generator.standard_normal(HIDDEN))
    if mask == "table":
        places = np.arange(64)
        _add(proto, "table", np.where(abs(places[:, None] - places) > 20, -3.4e38, 0)[None, None])
    if placed:
        _add(proto, "position", generator.standard_normal((1, HEADS, 5, 5)))
    _add(proto, "out_w", generator.standard_normal((HIDDEN, HIDDEN)))
    _add(proto, "out_b", generator.standard_normal(HIDDEN))
    _add(proto, "gamma", np.ones(HIDDEN))
    _add(proto, "beta", np.zeros(HIDDEN))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def padded_feeds() -> dict[str, np.ndarray]:
    """Two rows, the second one padded."""
    generator = np.random.default_rng(1)
    return {
        "x": generator.standard_normal((2, 5, HIDDEN)).astype(np.float32),
        "attention_mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int64),
    }


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Return the first output on ONNX Runtime."""
    return run_all(model, feeds)[0]


def run_all(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return every output on ONNX Runtime."""
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def kinds(model: ir.Model) -> list[str]:
    """The operator types of the graph, sorted."""
    return sorted(node.op_type for node in model.graph)


def _add(proto: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
