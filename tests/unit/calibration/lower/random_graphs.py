"""Random float graphs of linears, convolutions and attention, with a random symmetric plan for each."""

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
from onnx import TensorProto, helper, numpy_helper, shape_inference

from calibration.plan import ActivationGroup, LinearPlan, Plan
from calibration.quantise import quantise_weight

SEQUENCE, HEADS, HEAD = 3, 2, 4
WIDTH = HEADS * HEAD
CHANNELS, SIZE = 4, 5
TOKEN_STEPS = ("linear", "gemm", "attention", "norm", "gelu", "residual", "scale")
IMAGE_STEPS = ("conv", "pointwise", "grouped", "strided", "relu", "residual", "scale")


@dataclass(frozen=True)
class Recipe:
    """What a graph is made of; the numbers in it follow from the seed."""

    steps: tuple[str, ...]
    is_image: bool
    exponent: int
    seed: int


@st.composite
def recipes(draw):
    """Draw a graph; at least one of its steps has weights."""
    is_image = draw(st.booleans())
    names = IMAGE_STEPS if is_image else TOKEN_STEPS
    steps = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4))
    weighted = draw(st.sampled_from(names[:4] if is_image else names[:3]))
    return Recipe(
        steps=(*steps, weighted),
        is_image=is_image,
        exponent=draw(st.integers(-6, 6)),
        seed=draw(st.integers(0, 2**20)),
    )


class Graph:
    """A graph under construction. Every step takes the name of a value and returns that of its result."""

    def __init__(self, recipe):
        self.random = np.random.default_rng(recipe.seed)
        self.nodes, self.weights = [], []
        shape = ["batch", CHANNELS, SIZE, SIZE] if recipe.is_image else ["batch", SEQUENCE, WIDTH]
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        value = "x"
        for step in recipe.steps:
            value = getattr(self, f"add_{step}")(value)
        # Nothing is lowered away, and no output is the input of another reader.
        self.value = self.node("Tanh", value)

    def finish(self):
        """Return the model with the types and shapes of all values."""
        output = helper.make_tensor_value_info(self.value, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "random", [self.input], [output], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)

    def node(self, op_type, *inputs, **attributes):
        name = f"n{len(self.nodes)}_{op_type}"
        self.nodes.append(helper.make_node(op_type, inputs, [f"{name}_y"], name=name, **attributes))
        return f"{name}_y"

    def constant(self, array):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape, axis):
        """A weight whose channels differ by orders of magnitude; now and then one is zero throughout."""
        spread = [1] * len(shape)
        spread[axis] = -1
        exponents = self.random.integers(-6, 3, shape[axis]).astype(np.float32)
        array = self.random.standard_normal(shape) * 2.0 ** exponents.reshape(spread)
        if self.random.random() < 0.2:
            np.moveaxis(array, axis, 0)[0] = 0
        return self.constant(array.astype(np.float32))

    def row(self, width):
        return self.constant(self.random.standard_normal(width).astype(np.float32))

    def add_linear(self, value):
        product = self.node("MatMul", value, self.weight(WIDTH, WIDTH, axis=1))
        return self.node("Add", product, self.row(WIDTH)) if self.random.random() < 0.7 else product

    def add_gemm(self, value):
        flat = self.node("Reshape", value, self.constant(np.array([-1, WIDTH])))
        trans_b = int(self.random.integers(2))
        given = [flat, self.weight(WIDTH, WIDTH, axis=0 if trans_b else 1)]
        if self.random.random() < 0.7:
            given.append(self.row(WIDTH))
        product = self.node("Gemm", *given, transB=trans_b)
        return self.node("Reshape", product, self.constant(np.array([-1, SEQUENCE, WIDTH])))

    def add_attention(self, value):
        heads = self.constant(np.array([-1, SEQUENCE, HEADS, HEAD]))
        query, key, given = (self.node("Reshape", self.add_linear(value), heads) for _ in range(3))
        query, given = (self.node("Transpose", one, perm=[0, 2, 1, 3]) for one in (query, given))
        scores = self.node("MatMul", query, self.node("Transpose", key, perm=[0, 2, 3, 1]))
        scores = self.node("Mul", scores, self.constant(np.array(HEAD**-0.5, np.float32)))
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), given)
        mixed = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        joined = self.node("Reshape", mixed, self.constant(np.array([-1, SEQUENCE, WIDTH])))
        return self.add_linear(joined)

    def add_norm(self, value):
        return self.node("LayerNormalization", value, self.row(WIDTH), self.row(WIDTH), axis=-1)

    def add_gelu(self, value):
        return self.node("Gelu", value)

    def add_relu(self, value):
        return self.node("Relu", value)

    def add_residual(self, value):
        return self.node("Add", value, "x")

    def add_scale(self, value):
        return self.node("Mul", value, self.constant(np.array(2.0 ** self.random.integers(-6, 7), np.float32)))

    def add_conv(self, value, *, kernel=3, group=1, **attributes):
        given = [value, self.weight(CHANNELS, CHANNELS // group, kernel, kernel, axis=0)]
        if self.random.random() < 0.7:
            given.append(self.row(CHANNELS))
        pads = [kernel // 2] * 4
        return self.node("Conv", *given, kernel_shape=[kernel, kernel], pads=pads, group=group, **attributes)

    def add_pointwise(self, value):
        return self.add_conv(value, kernel=1)

    def add_grouped(self, value):
        return self.add_conv(value, group=int(self.random.choice([2, CHANNELS])))

    def add_strided(self, value):
        """A convolution with a stride, and its result brought back to the size of the image."""
        small = self.add_conv(value, strides=[2, 2])
        return self.node("Pad", small, self.constant(np.array([0, 0, 0, 0, 0, 0, 2, 2])))


def make_feeds(recipe):
    """Return two samples; some values are far from the others, as activations of Transformers are."""
    random = np.random.default_rng(recipe.seed + 1)
    shape = (2, CHANNELS, SIZE, SIZE) if recipe.is_image else (2, SEQUENCE, WIDTH)
    values = random.standard_normal(shape) * 2.0**recipe.exponent
    return {"x": np.where(random.random(shape) < 0.02, 20 * values, values).astype(np.float32)}


def make_plan(model, linears, magnitudes, seed):
    """Plan every linear: scales from a quarter to four times what just holds the values, smoothing, bias correction."""
    random = np.random.default_rng(seed)
    readers = {}
    for linear in linears:
        readers.setdefault(linear.activation, []).append(linear)
    groups, entries = [], []
    for tensor, group in readers.items():
        # A Conv's channels are not the last axis of what it reads, which smoothing multiplies.
        smooth = _draw_smoothing(random, group[0]) if all(one.kind != "Conv" for one in group) else None
        largest = magnitudes[tensor] / (1.0 if smooth is None else float(smooth.min()))
        scale = max(largest, 1e-30) / 127 * float(random.choice([0.25, 1.0, 1.0, 4.0]))
        groups.append(
            ActivationGroup(tensor=tensor, linears=tuple(one.node for one in group), smooth=smooth, scale=scale,
                            zero_point=0, dtype="int8", bits=8, method="minmax", why="drawn", error=0.0)
        )  # fmt: skip
        entries += [_plan_linear(model, linear, smooth, random) for linear in group]
    return Plan(groups=tuple(groups), linears=tuple(entries))


def _draw_smoothing(random, linear):
    if random.random() < 0.5:
        return None
    return np.exp2(random.integers(-3, 4, linear.shape[0])).astype(np.float32)


def _plan_linear(model, linear, smooth, random):
    weight = model.graph.initializers[linear.weight].const_value.numpy()
    axis = 0 if linear.transposed else 1
    _, scale, _ = quantise_weight(smoothen(weight, smooth, axis), axis)
    delta = random.standard_normal(linear.shape[1]).astype(np.float32) if random.random() < 0.5 else None
    return LinearPlan(
        node=linear.node, weight=linear.weight, weight_scale=scale * np.float32(random.choice([0.5, 1.0, 1.0])),
        weight_zero_point=0, weight_bits=8, bias_delta=delta, error=0.0, why="drawn",
    )  # fmt: skip


def smoothen(weight, smooth, axis):
    """Return the weight with its input channels multiplied."""
    if smooth is None:
        return weight
    return weight * smooth.reshape([1 if at == axis else -1 for at in range(weight.ndim)])
