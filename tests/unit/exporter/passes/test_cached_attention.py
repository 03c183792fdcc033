"""Attention over a cache as one operator: the same numbers as its standard form, whatever is padded, shared or near."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.tape import Tape

from exporter.passes.cached_attention import fuse_attention, fuse_rotary
from exporter.tracing.step_functions import ATTENTION, DOMAIN, ROTATE, VERSION, attach_functions

BATCH, NEW, OLD, WIDTH = 2, 3, 5, 8
HEADS, SHARED = 4, 2


def value(name, shape, dtype=ir.DataType.FLOAT):
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def make_model(*, rotary=False, window=-1):
    """Return one attention over flat queries and keys, the way a decoder is traced."""
    flat = {
        "query": value("query", ("batch", "sequence", HEADS * WIDTH)),
        "key": value("key", ("batch", "sequence", SHARED * WIDTH)),
        "value": value("value", ("batch", "sequence", SHARED * WIDTH)),
    }
    past = [value(f"past_{kind}", ("batch", SHARED, "past", WIDTH)) for kind in ("key", "value")]
    mask = value("attention_mask", ("batch", "total"), ir.DataType.INT64)
    angles = [value(name, ("batch", "sequence", WIDTH)) for name in ("cos", "sin")] if rotary else []
    tape = Tape()
    parts = {name: split_heads(tape, one, HEADS if name == "query" else SHARED) for name, one in flat.items()}
    if rotary:
        for name in ("query", "key"):
            turned = tape.op(ROTATE, [parts[name], *angles], domain=DOMAIN)
            turned.shape, turned.type = parts[name].shape, parts[name].type
            parts[name] = turned
    outputs = tape.op_multi_out(
        ATTENTION,
        [*parts.values(), *past, mask],
        {"scale": 0.3, "window": window},
        num_outputs=3,
        domain=DOMAIN,
    )
    for one, name in zip(outputs, ("output", "present_key", "present_value"), strict=True):
        one.name, one.type = name, ir.TensorType(ir.DataType.FLOAT)
    outputs[0].shape = ir.Shape(("batch", "sequence", HEADS, WIDTH))
    for one in outputs[1:]:
        one.shape = ir.Shape(("batch", SHARED, "total", WIDTH))
    graph = ir.Graph(
        [*flat.values(), *past, mask, *angles],
        outputs,
        nodes=tape.nodes,
        opset_imports={"": 20, DOMAIN: VERSION},
        name="step",
    )
    model = ir.Model(graph, ir_version=10)
    attach_functions(model)
    return model


def split_heads(tape, one, heads):
    shape = tape.op("Constant", [], {"value_ints": [0, 0, heads, WIDTH]})
    turned = tape.op("Transpose", [tape.op("Reshape", [one, shape])], {"perm": [0, 2, 1, 3]})
    turned.shape, turned.type = ir.Shape(("batch", heads, "sequence", WIDTH)), one.type
    return turned


def make_feeds(*, old=OLD, new=NEW, batch=BATCH, padding=(), rotary=False):
    generator = np.random.default_rng(0)

    def draw(*shape):
        return generator.standard_normal(shape).astype(np.float32)

    mask = np.ones((batch, old + new), np.int64)
    for row, count in enumerate(padding):
        mask[row, :count] = 0
    feeds = {
        "query": draw(batch, new, HEADS * WIDTH),
        "key": draw(batch, new, SHARED * WIDTH),
        "value": draw(batch, new, SHARED * WIDTH),
        "past_key": draw(batch, SHARED, old, WIDTH),
        "past_value": draw(batch, SHARED, old, WIDTH),
        "attention_mask": mask,
    }
    if rotary:
        half = draw(batch, new, WIDTH // 2)
        for name, turn in (("cos", np.cos), ("sin", np.sin)):
            feeds[name] = np.concatenate([turn(half), turn(half)], axis=-1)
    return feeds


def run(model, feeds):
    import onnxruntime

    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def attend(feeds, window):
    """Return what attention over a cache is, in float64, row by row and head by head."""
    total = feeds["attention_mask"].shape[1]
    batch, new, _ = feeds["query"].shape
    query = feeds["query"].reshape(batch, new, HEADS, WIDTH).astype(np.float64)
    joined = [
        np.concatenate(
            [feeds[f"past_{name}"], feeds[name].reshape(batch, new, SHARED, WIDTH).transpose(0, 2, 1, 3)], axis=2
        )
        for name in ("key", "value")
    ]
    output = np.zeros((batch, new, HEADS, WIDTH))
    for row in range(batch):
        for place in range(new):
            last = total - new + place
            first = 0 if window < 0 else max(0, last - window + 1)
            seen = [one for one in range(first, last + 1) if feeds["attention_mask"][row, one]]
            for head in range(HEADS):
                keys, values = (one[row, head // (HEADS // SHARED)][seen].astype(np.float64) for one in joined)
                scores = np.exp(0.3 * keys @ query[row, place, head]) if seen else np.zeros(0)
                output[row, place, head] = scores @ values / scores.sum() if seen else 0
    return output, *joined


CASES = {
    "a prompt": {"old": 0},
    "one token": {"new": 1},
    "a prompt behind a cache, alone": {"batch": 1},
    "a padded prompt": {"old": 0, "padding": (0, 2)},
    "one token, padded": {"new": 1, "padding": (3, 0)},
}


@pytest.mark.parametrize("window", [-1, 2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("fused", [False, True], ids=["standard", "fused"])
def test_both_forms_are_attention_over_a_cache(fused, case, window):
    model = make_model(window=window)
    feeds = make_feeds(**case)
    if fused:
        assert fuse_attention(model) == 1
    got, wanted = run(model, feeds), attend(feeds, window)
    counts = feeds["attention_mask"][:, -feeds["query"].shape[1] :] == 1
    np.testing.assert_allclose(got[0][counts], wanted[0][counts], atol=1e-5)
    for one, other in zip(got[1:], wanted[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_standard_form_takes_several_tokens_behind_a_cache_in_a_batch():
    feeds = make_feeds(padding=(4, 0))
    np.testing.assert_allclose(run(make_model(), feeds)[0], attend(feeds, -1)[0], atol=1e-5)


def test_fused_heads_are_neither_split_nor_turned():
    model = make_model()
    fuse_attention(model)
    group = next(node for node in model.graph if node.op_type == "GroupQueryAttention")
    assert [one.name for one in group.inputs[:3]] == ["query", "key", "value"]
    assert not model.functions
    assert DOMAIN not in model.opset_imports


def join_heads(model, to, shape):
    """Let the model give its heads joined, in the place of them."""
    output = model.graph.outputs[0]
    wanted = ir.Value(name="wanted", const_value=ir.tensor(np.array(to, np.int64), name="wanted"))
    node = ir.node("Reshape", [output, wanted], name="join")
    joined = node.outputs[0]
    joined.name, joined.type, joined.shape = "joined", output.type, ir.Shape(shape)
    model.graph.register_initializer(wanted)
    model.graph.append(node)
    model.graph.outputs[0] = joined


@pytest.mark.parametrize(
    ("to", "shape", "left"),
    [
        ([0, 0, -1], ("batch", "sequence", HEADS * WIDTH), []),
        ([1, -1, HEADS * WIDTH], (1, "tokens", HEADS * WIDTH), ["Reshape", "Reshape"]),
    ],
    ids=["as they were", "otherwise"],
)
def test_heads_that_are_joined_behind_are_not_split_first(to, shape, left):
    model, feeds = make_model(), make_feeds(new=1)
    join_heads(model, to, shape)
    before = run(model, feeds)
    assert fuse_attention(model) == 1
    group = next(node for node in model.graph if node.op_type == "GroupQueryAttention")
    behind, value = [], group.outputs[0]
    while value.uses():
        (use,) = value.uses()
        behind.append(use.node.op_type)
        value = use.node.outputs[0]
    assert behind == left
    assert value.name == "joined"
    for one, other in zip(run(model, feeds), before, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_rotary_positions_are_turned_before_heads_are_split():
    model, feeds = make_model(rotary=True), make_feeds(rotary=True, new=1)
    before = run(model, feeds)
    assert fuse_rotary(model) == 2
    assert fuse_attention(model) == 1
    group = next(node for node in model.graph if node.op_type == "GroupQueryAttention")
    assert [one.producer().op_type for one in group.inputs[:2]] == ["RotaryEmbedding"] * 2
    for one, other in zip(run(model, feeds), before, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_rotation_turns_each_pair_by_its_angle():
    """A head of width 8 is four points (x_i, x_i+4), each turned about the origin (Su et al., 2021)."""
    feeds = make_feeds(rotary=True, old=0, batch=1)
    key = run(make_model(rotary=True), feeds)[1][0, 0]
    given = feeds["key"].reshape(1, NEW, SHARED, WIDTH)[0, :, 0]
    points = given[:, :4] + 1j * given[:, 4:]
    turned = points * (feeds["cos"][0, :, :4] + 1j * feeds["sin"][0, :, :4])
    np.testing.assert_allclose(key, np.concatenate([turned.real, turned.imag], axis=-1), atol=1e-6)


def test_a_graph_without_such_nodes_stays_as_it_is():
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="empty"), ir_version=10)
    assert fuse_attention(model) == fuse_rotary(model) == 0
    assert list(model.opset_imports) == [""]
