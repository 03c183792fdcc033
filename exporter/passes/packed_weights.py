"""Weights of few levels are stored in 1, 2 or 4 bits each, and unpacked by a few nodes that a runtime folds at load.

In: a float graph before it is lowered; then what was made of it. Out: the same graph, smaller on disk and as fast:
ONNX Runtime computes what hangs on constants alone once, when it loads the model, and multiplies with the result in
float or int8 as without it. A table is not unpacked at load, but row by row as it is looked up.

Measured with ONNX Runtime 1.31, AMX and 2 threads: MiniLM in dynamic int8 at 8x128 ran at 2.97 times the speed of
float, at 2.90 with ternary weights (6.5 MB for 23.1), at 2.96 with binary ones (3.7 MB); loading took 0.3 s for 0.1.
MatMulNBits with 2 bits ran MiniLM's layers at 0.1 to 2 times the speed of float, and has no form of 1 bit.

The nodes are standard operators in a function of the model's own, ``ai.stepdown.weights::Unpack<bits>``, then a product
with the scales, and for int8 a QuantizeLinear with the scale of the lowering. The order of bits is that of
:mod:`compression.rounding.low_bit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.few_levels import Levels, find_levels
from calibration.lower.edits import add_constant, remove_dead, take_over
from compression.rounding.low_bit import Bits, find_width, pack_levels, unpack_levels
from exporter.passes.graph import constant

DOMAIN = "ai.stepdown.weights"
# Smaller weights are not worth the nodes.
_SMALLEST = 1024
_LOWEST, _HIGHEST = -128, 127
# What lies between two whole numbers may be rounded to either: level 4 of 8 is 63.5 of 127.
_HALF = 0.5 + 1e-4
_BITS: Mapping[str, Bits] = {"Unpack1": 1, "Unpack2": 2, "Unpack4": 4}
# What multiplies with a weight or looks its rows up; others read masks and the like.
_READERS = {"MatMul", "Gemm", "Gather", "Transpose"}
# What may stand between the levels and who reads the weight.
_HELPERS = {"QuantizeLinear", "Reshape", "Mul"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FewLevels:
    """A weight of few levels: ``found`` lies as the weight does, or turned, so that scales are those of rows."""

    found: Levels
    turned: bool
    bits: Bits

    @property
    def floats(self) -> NDArray[np.float32]:
        """The weight, shaped as stored."""
        rows = self.found.spell_out()
        return rows.T if self.turned else rows


def find_few_levels(model: ir.Model) -> Mapping[str, FewLevels]:
    """Return the float matrices of ``model`` that have few levels, by the name of their initializer."""
    found: dict[str, FewLevels] = {}
    for name, value in model.graph.initializers.items():
        array = constant(value) if any(use.node.op_type in _READERS for use in value.uses()) else None
        if array is None or array.dtype != np.float32 or array.ndim != 2 or array.size < _SMALLEST or array.size % 8:
            continue
        for turned in (True, False):
            levels = find_levels(np.ascontiguousarray(array.T if turned else array, dtype=np.float32))
            bits = find_width(levels.levels) if levels is not None else None
            if levels is not None and bits is not None:
                found[name] = FewLevels(found=levels, turned=turned, bits=bits)
                break
    return found


def pack_tables(model: ir.Model, weights: Mapping[str, FewLevels]) -> int:
    """Store each of ``weights`` that Gather looks up packed, a scale or more a row; return how many reads."""
    changed = 0
    for node in list(model.graph):
        table = node.inputs[0] if node.op_type == "Gather" else None
        weight = weights.get(table.name or "") if table is not None else None
        if weight is None or weight.turned or node.attributes.get_int("axis", 0) != 0:
            continue
        changed += _look_up(model, node, str(table.name), weight) if table is not None else 0
    if changed:
        remove_dead(model)
    return changed


def pack_weights(model: ir.Model, weights: Mapping[str, FewLevels]) -> int:
    """Store each of ``weights`` packed, in the float or int8 form it has by now; return how many.

    A form that holds other numbers stays as it is.
    """
    changed = 0
    for name, value in list(model.graph.initializers.items()):
        given = [known for known in weights if name == known or name.startswith(f"{known}_")]
        if not given or constant(value) is None or not value.uses():
            continue
        own = max(given, key=len)
        weight = weights[own]
        # A lowering stores the weight of a Gemm the other way round.
        turned = replace(weight, turned=not weight.turned)
        changed += _replace(model, own, value, weight) or _replace(model, own, value, turned)
    if changed:
        remove_dead(model)
    return changed


def read_packed(node: ir.Node, place: int) -> tuple[NDArray[np.generic], Bits] | None:
    """Return what a node reads there, computed, and the bits it is stored in; None where it is not stored packed.

    Of a table, which is unpacked behind the look-up, these are the levels.
    """
    value = node.inputs[place]
    if value is None:
        return None
    if node.op_type == "Gather" and (unpack := _find_reader(node)) is not None and constant(value) is not None:
        bits = _BITS[unpack.op_type]
        codes = np.asarray(constant(value), np.uint8)
        return unpack_levels(codes, bits, codes.shape[-1] * 8 // bits), bits
    found = _find_unpack(value)
    array = _compute(value) if found is not None else None
    return (array, _BITS[found.op_type]) if found is not None and array is not None else None


def list_packed(value: ir.Value) -> tuple[ir.Value, ...]:
    """Return the constants that a weight stored packed is made of; none where it is not."""
    node = value.producer()
    if node is None or _find_unpack(value) is None:
        return ()
    below = list_packed(node.inputs[0]) if node.inputs[0] is not None else ()
    return (*below, *(given for given in node.inputs if given is not None and given.is_initializer()))


def unpacks(node: ir.Node) -> bool:
    """Whether a node only helps to unpack what others read, or to scale what was looked up."""
    if node.op_type == "Gather":
        return any(_find_unpack(use.node.outputs[0]) is not None and use.idx == 1 for use in node.outputs[0].uses())
    return _find_unpack(node.outputs[0]) is not None


def count_more(node: ir.Node) -> int:
    """Return how many more weights a node unpacks than bytes are stored for it."""
    if node.domain != DOMAIN or node.inputs[0] is None:
        return 0
    rows = node.inputs[0].producer()
    codes = constant(node.inputs[0] if rows is None else rows.inputs[0])
    return 0 if codes is None else codes.size * (8 // _BITS[node.op_type] - 1)


def _find_reader(node: ir.Node) -> ir.Node | None:
    uses = [use.node for use in node.outputs[0].uses()]
    return uses[0] if len(uses) == 1 and uses[0].domain == DOMAIN else None


def _find_unpack(value: ir.Value) -> ir.Node | None:
    node = value.producer()
    while node is not None and node.op_type in _HELPERS and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node if node is not None and node.domain == DOMAIN else None


def _compute(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Return what the nodes behind a value make of constants, as a runtime folds them."""
    node = value.producer() if value is not None else None
    if node is None:
        return constant(value)
    first, second = _compute(node.inputs[0]), constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if first is None or second is None:
        return None
    if node.domain == DOMAIN:
        bits = _BITS[node.op_type]
        return unpack_levels(np.asarray(first, np.uint8), bits, first.size * 8 // bits).reshape(second)
    match node.op_type:
        case "Mul":
            return np.asarray(np.multiply(first, second), np.float32)
        case "Reshape":
            return first.reshape(second)
        case "QuantizeLinear":
            return np.clip(np.rint(np.divide(first, second)), _LOWEST, _HIGHEST).astype(np.int8)
        case _:
            return None


def _look_up(model: ir.Model, node: ir.Node, name: str, weight: FewLevels) -> int:
    indices = node.inputs[1]
    levels, scales = weight.found.levels, weight.found.scales
    if indices is None or indices.shape is None or levels.shape[1] * weight.bits % 8:
        return 0
    graph, axes = model.graph, [0] * len(indices.shape)
    codes = add_constant(graph, f"{name}_codes", pack_levels(levels, weight.bits))
    steps = add_constant(graph, f"{name}_steps", scales if scales.shape[1] == 1 else scales[:, :, None])
    rows = ir.node("Gather", [codes, indices], {"axis": 0}, name=f"{node.name}_rows")
    sizes = [levels.shape[1]] if scales.shape[1] == 1 else [scales.shape[1], levels.shape[1] // scales.shape[1]]
    parts = add_constant(graph, f"{name}_rows", np.array([*axes, *sizes], np.int64))
    unpack = _unpack(model, rows.outputs[0], parts, weight.bits, str(node.name))
    scale = ir.node("Gather", [steps, indices], {"axis": 0}, name=f"{node.name}_steps")
    product = ir.node("Mul", [unpack.outputs[0], scale.outputs[0]], name=f"{node.name}_levels")
    new = [rows, unpack, scale, product]
    if len(sizes) > 1:
        shape = add_constant(graph, f"{name}_row", np.array([*axes, levels.shape[1]], np.int64))
        new.append(ir.node("Reshape", [product.outputs[0], shape], name=f"{node.name}_whole"))
    graph.insert_before(node, new)
    take_over(node.outputs[0], new[-1].outputs[0])
    return 1


def _replace(model: ir.Model, name: str, stored: ir.Value, weight: FewLevels) -> int:
    form = _find_form(model, stored, weight.floats)
    if form is None:
        return 0
    graph = model.graph
    new = _spell_out(model, name, weight, str(stored.name))
    if form:
        new.append(ir.node("QuantizeLinear", [new[-1].outputs[0], *form], {"axis": 1}, name=f"{stored.name}_round"))
    made = new[-1].outputs[0]
    made.name, made.shape, made.type = f"{stored.name}_unpacked", stored.shape, stored.type
    graph.insert_before(graph[0], new)
    stored.replace_all_uses_with(made)
    return 1


def _find_form(model: ir.Model, stored: ir.Value, floats: NDArray[np.float32]) -> list[ir.Value] | None:
    """Return the scale and zero point that make ``floats`` what is stored; none where floats are, None where others."""
    array = constant(stored)
    assert array is not None
    if array.shape != floats.shape:
        return None
    if array.dtype == np.float32:
        return [] if np.allclose(array, floats, rtol=1e-5, atol=0) else None
    scale, zero = (model.graph.initializers.get(f"{stored.name}_{suffix}") for suffix in ("scale", "zero"))
    steps, middle = constant(scale), constant(zero)
    if array.dtype != np.int8 or scale is None or zero is None or steps is None or middle is None:
        return None
    if steps.shape != (floats.shape[1],) or middle.any():
        return None
    off = np.abs(np.clip(np.divide(floats, steps), _LOWEST, _HIGHEST) - array)
    return [scale, zero] if off.max() <= _HALF else None


def _spell_out(model: ir.Model, name: str, weight: FewLevels, node: str) -> list[ir.Node]:
    """Return the nodes that give the floats of the weight ``name``, called after ``node``."""
    levels, scales = weight.found.levels, weight.found.scales
    (rows, columns), groups = levels.shape, scales.shape[1]
    shape, parts = [rows, columns], [rows, groups, columns // groups]
    steps = scales[:, :, None]
    if weight.turned:
        levels, shape, parts, steps = levels.T, shape[::-1], [*parts[1:], rows], scales.T[:, None, :]
    if groups == 1:
        parts, steps = shape, steps.reshape((1, rows) if weight.turned else (rows, 1))
    codes = add_constant(model.graph, f"{name}_codes", pack_levels(levels.reshape(1, -1), weight.bits)[0])
    shape_of_parts = add_constant(model.graph, f"{name}_parts", np.array(parts, np.int64))
    unpack = _unpack(model, codes, shape_of_parts, weight.bits, node)
    scale = add_constant(model.graph, f"{name}_steps", np.ascontiguousarray(steps))
    new = [unpack, ir.node("Mul", [unpack.outputs[0], scale], name=f"{node}_levels")]
    if groups > 1:
        whole = add_constant(model.graph, f"{name}_whole", np.array(shape, np.int64))
        new.append(ir.node("Reshape", [new[-1].outputs[0], whole], name=f"{node}_join"))
    return new


def _unpack(model: ir.Model, codes: ir.Value, shape: ir.Value, bits: Bits, name: str) -> ir.Node:
    function = _make_function(bits, model.graph.opset_imports[""])
    model.functions.setdefault(function.identifier(), function)
    model.graph.opset_imports[DOMAIN] = 1
    return ir.node(function.name, [codes, shape], domain=DOMAIN, name=f"{name}_unpack")


def _make_function(bits: Bits, opset: int) -> ir.Function:
    """Return ``Unpack<bits>(codes: uint8 [...], shape: int64 [rank]) -> float levels of that shape``.

    What each byte holds is looked up: at run time, for a table, shifts and masks take five times as long.
    """
    codes, shape = ir.Value(name="codes"), ir.Value(name="shape")
    bytes_ = np.arange(256, dtype=np.uint8)[:, None]
    spelled = ir.tensor(unpack_levels(bytes_, bits, 8 // bits).astype(np.float32))
    table = ir.node("Constant", [], {"value": spelled})
    places = ir.node("Cast", [codes], {"to": ir.DataType.INT32})
    levels = ir.node("Gather", [table.outputs[0], places.outputs[0]], {"axis": 0})
    shaped = ir.node("Reshape", [levels.outputs[0], shape])
    graph = ir.Graph(
        [codes, shape], [shaped.outputs[0]], nodes=[table, places, levels, shaped], opset_imports={"": opset}
    )
    return ir.Function(DOMAIN, f"Unpack{bits}", graph=graph, attributes=[])
