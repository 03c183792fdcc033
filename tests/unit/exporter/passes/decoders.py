"""A small decoder of one layer, the way one is traced: gated, with shared keys, and the head its table turned."""

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx_ir.tape import Tape

from exporter.tracing.step_functions import ATTENTION, DOMAIN, VERSION, attach_functions
from runtimes.generation.cache_spec import CacheSpec
from runtimes.generation.feeds import carry_cache, make_step

VOCABULARY, HIDDEN, INNER = 50, 64, 96
HEADS, SHARED, WIDTH = 4, 2, 16
CACHE = CacheSpec(layers=1, kv_heads=SHARED, head_dim=WIDTH)
# The products over one layer, and what each reads: `normed` is read by three, `second` by two.
LINEARS = ("query", "key", "value", "output", "gate", "up", "down")


def make_decoder(*, tied=True, bias=True, seed=0, hidden=HIDDEN):
    """Return a float model; inputs of its linears differ in size, as they do behind a trained norm."""
    random = np.random.default_rng(seed)
    fed = {
        "input_ids": value("input_ids", ("batch", "sequence"), ir.DataType.INT64),
        "attention_mask": value("attention_mask", ("batch", "total"), ir.DataType.INT64),
        "position_ids": value("position_ids", ("batch", "sequence"), ir.DataType.INT64),
        **{name: value(name, ("batch", SHARED, "past", WIDTH)) for name, _ in CACHE.names()},
    }
    tape = Tape()

    def store(name, array):
        stored = ir.tensor(np.asarray(array), name=name)
        return tape.initializer(stored, name)

    def draw(name, depth, width):
        return store(name, random.standard_normal((depth, width)).astype(np.float32) / np.float32(np.sqrt(depth)))

    def product(name, x, depth, width):
        made = named(tape.op("MatMul", [x, draw(f"{name}_w", depth, width)], name=name), name, width)
        if not bias or name in ("gate", "up"):
            return made
        added = store(f"{name}_b", random.standard_normal(width).astype(np.float32))
        return named(tape.op("Add", [made, added], name=f"{name}_add"), f"{name}_sum", width)

    def normalise(name, x):
        scale = np.exp(random.standard_normal(hidden)).astype(np.float32)
        made = tape.op("LayerNormalization", [x, store(f"{name}_w", scale), store(f"{name}_b", 0 * scale)], name=name)
        return named(made, name, hidden)

    def split(name, x, heads):
        shape = store(f"{name}_split", np.array([0, 0, heads, WIDTH], np.int64))
        turned = tape.op("Transpose", [tape.op("Reshape", [x, shape])], {"perm": [0, 2, 1, 3]})
        turned.shape, turned.type = ir.Shape(("batch", heads, "sequence", WIDTH)), x.type
        return turned

    table = store("table", random.standard_normal((VOCABULARY, hidden)).astype(np.float32))
    embedded = named(tape.op("Gather", [table, fed["input_ids"]], {"axis": 0}, name="embed"), "embedded", hidden)
    normed = normalise("normed", embedded)
    counts = {"query": HEADS, "key": SHARED, "value": SHARED}
    parts = [split(name, product(name, normed, hidden, heads * WIDTH), heads) for name, heads in counts.items()]
    made = tape.op_multi_out(
        ATTENTION,
        [*parts, *(fed[name] for name, _ in CACHE.names()), fed["attention_mask"]],
        {"scale": 0.25, "window": -1},
        num_outputs=3,
        domain=DOMAIN,
        name="attend",
    )
    made[0].shape, made[0].type = ir.Shape(("batch", "sequence", HEADS, WIDTH)), embedded.type
    for one, (_, name) in zip(made[1:], CACHE.names(), strict=True):
        one.name, one.type, one.shape = name, embedded.type, ir.Shape(("batch", SHARED, "total", WIDTH))
    flat = tape.op("Reshape", [made[0], store("joined", np.array([0, 0, HEADS * WIDTH], np.int64))], name="join")
    mixed = product("output", named(flat, "mixed", HEADS * WIDTH), HEADS * WIDTH, hidden)
    middle = named(tape.op("Add", [embedded, mixed]), "middle", hidden)
    second = normalise("second", middle)
    gate = product("gate", second, hidden, INNER)
    gated = tape.op("Mul", [tape.op("Mul", [gate, tape.op("Sigmoid", [gate])]), product("up", second, hidden, INNER)])
    down = product("down", named(gated, "inner", INNER), INNER, hidden)
    last = normalise("last", named(tape.op("Add", [middle, down]), "behind", hidden))
    turned = tape.op("Transpose", [table], {"perm": [1, 0]}) if tied else draw("head_w", hidden, VOCABULARY)
    logits = named(tape.op("MatMul", [last, turned], name="head"), "logits", VOCABULARY)
    imports = {"": 20, DOMAIN: VERSION}
    graph = ir.Graph(
        [*fed.values()],
        [logits, *made[1:]],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports=imports,
        name="step",
    )
    model = ir.Model(graph, ir_version=10)
    attach_functions(model)
    return model


def value(name, shape, dtype=ir.DataType.FLOAT):
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def named(made, name, width):
    """Name a value of the hidden states' kind."""
    made.name, made.type = name, ir.TensorType(ir.DataType.FLOAT)
    made.shape = ir.Shape(("batch", "sequence", width))
    return made


def draw_tokens(rows=3, length=12, seed=0):
    """Return (tokens, mask), the second row padded."""
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (rows, length))
    mask = np.ones_like(ids)
    mask[1, :4] = 0
    return ids, mask


def open_session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)


def run_whole(model, ids, mask):
    """Return the logits of all tokens at once, those of padding 0."""
    session = open_session(model)
    asked = {one.name: np.ones(1, np.int64) for one in session.get_overridable_initializers()}
    logits = session.run(["logits"], {**make_step(ids, mask, CACHE.empty(len(ids))), **asked})[0]
    return logits * mask[..., None]


def run_each(model, ids, mask):
    """Return the logits of one token after the other."""
    session, past, found = open_session(model), CACHE.empty(len(ids)), []
    names = [one.name for one in session.get_outputs()]
    for place in range(ids.shape[1]):
        feeds = make_step(ids[:, place : place + 1], mask[:, : place + 1], past)
        outputs = dict(zip(names, session.run(names, feeds), strict=True))
        past = carry_cache(CACHE, outputs)
        found.append(outputs["logits"])
    return np.concatenate(found, axis=1) * mask[..., None]
