"""Operators that TensorRT's parser does not have. The parser itself knows better, where one is installed."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from exporter.inspecting.blockwise_weights import is_packed
from exporter.lint.pairs import name_of
from exporter.lint.rule import Note
from exporter.lint.tensorrt.dynamic_ops import DYNAMIC
from exporter.lint.tensorrt.integer_ops import is_integer

#: Without an importer in onnx-tensorrt's table of operators (docs/operators.md of TensorRT 10.15).
MISSING = frozenset(
    {"AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad",
     "Col2Im", "Compress", "ConcatFromSequence", "DFT", "Det", "ImageDecoder", "MaxRoiPool", "MaxUnpool",
     "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement",
     "OptionalHasElement", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
     "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat",
     "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Unique"}
)  # fmt: skip
#: Domains that plugins may serve.
PLUGIN_DOMAINS = frozenset({"trt.plugins"})


def check(model: ir.Model) -> Iterator[Note]:
    """Yield operators outside of ONNX, and those the parser lacks."""
    for node in model.graph.all_nodes():
        if is_integer(node) or is_packed(node) or node.op_type in DYNAMIC:
            continue  # they have rules of their own
        if node.domain not in ("", "ai.onnx", *PLUGIN_DOMAINS):
            yield Note(
                node=name_of(node),
                what=f"{node.domain}::{node.op_type} is not an operator of ONNX",
                cure=_find_cure(node),
            )
        elif node.op_type in MISSING:
            cure = "export the model without it"
            yield Note(node=name_of(node), what=f"TensorRT has no {node.op_type}", cure=cure)


def _find_cure(node: ir.Node) -> str:
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return "quantise to int8: with 16- or 4-bit integers ONNX Runtime writes its own operators before opset 21"
    if node.domain.startswith("com.microsoft"):
        return "give TensorRT the graph before ONNX Runtime's optimizer fused it"
    return "write it with standard operators, or give TensorRT a plugin"
