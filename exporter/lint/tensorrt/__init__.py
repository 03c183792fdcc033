"""What TensorRT 10, 11 and RTX ask of a Q/DQ graph, a rule a line.

Sources: NvInfer.h 11.1, the migration guide from 10 to 11, onnx-tensorrt's parser, and plans built by TensorRT-RTX 1.7;
docs/lint.md says which rule comes from where. The order is that in which rewriting works: integer operators become
pairs before pairs are looked at, types meet before a Cast can hide a reader, and a pair that goes needs no other range.
"""

from __future__ import annotations

from exporter.lint.rule import Rule
from exporter.lint.tensorrt import (
    axis,
    bias,
    constants,
    dynamic_ops,
    float_types,
    integer_ops,
    masks,
    operators,
    opset,
    output_pair,
    output_type,
    packed_weights,
    scale,
    sparsity,
    stored_weights,
    transposed,
    zero_point,
)

RULES = (
    Rule(name="opset", severity="warning", check=opset.check),
    Rule(name="operator", severity="error", check=operators.check),
    Rule(name="scale", severity="error", check=scale.check),
    Rule(name="output-type", severity="error", check=output_type.check, fix=output_type.drop_attribute, reveals=True),
    Rule(
        name="dynamic-operator",
        severity="error",
        check=dynamic_ops.check,
        fix=dynamic_ops.keep_weights,
        exact=False,
        reveals=True,
    ),
    Rule(
        name="integer-operator",
        severity="error",
        check=integer_ops.check,
        fix=integer_ops.write_pairs,
        exact=False,
        reveals=True,
    ),
    Rule(
        name="packed-weight",
        severity="error",
        check=packed_weights.check,
        fix=packed_weights.store_int8,
        exact=False,
    ),
    Rule(name="integer-bias", severity="error", check=bias.check, fix=bias.store_floats),
    Rule(name="float-weight", severity="warning", check=stored_weights.check, fix=stored_weights.store_integers),
    Rule(name="mask-range", severity="warning", check=masks.check, fix=masks.keep_float, exact=False, reveals=True),
    Rule(name="moved-constant", severity="error", check=constants.check_moved, fix=constants.dequantise_first),
    Rule(name="integer-constant", severity="error", check=constants.check_small, fix=constants.store_small),
    Rule(
        name="scale-type",
        severity="error",
        check=float_types.check_scale,
        fix=float_types.match_scale,
        exact=False,
        reveals=True,
    ),
    Rule(
        name="float-island",
        severity="warning",
        check=float_types.check_islands,
        fix=float_types.join_islands,
        exact=False,
    ),
    Rule(name="output-pair", severity="warning", check=output_pair.check_outputs, fix=output_pair.bypass, exact=False),
    Rule(name="one-sided", severity="warning", check=output_pair.check_sides, fix=output_pair.bypass, exact=False),
    Rule(name="missing-axis", severity="warning", check=axis.check_missing, fix=axis.write_missing, reveals=True),
    Rule(
        name="integer-type", severity="error", check=zero_point.check_type, fix=zero_point.make_symmetric, exact=False
    ),
    Rule(name="zero-point", severity="error", check=zero_point.check_zero, fix=zero_point.make_symmetric, exact=False),
    Rule(
        name="channel-activation",
        severity="error",
        check=axis.check_activation,
        fix=axis.use_one_scale,
        exact=False,
    ),
    Rule(name="transposed-weight", severity="warning", check=transposed.check, fix=transposed.turn),
    Rule(name="weight-axis", severity="error", check=axis.check_weight, fix=axis.turn_weight, exact=False),
    Rule(name="sparsity", severity="warning", check=sparsity.check),
)
