"""What attention costs on a CPU in ONNX Runtime's forms: the measurements behind exporter/passes.

Six layers of 12 heads of 32 (MiniLM's), a quarter of each row padded. Subjects: MultiHeadAttention with a bias, the
standard Attention in its 3-D form with masked keys at the lowest float, the same at -60, and without any padding.
Prints a Markdown table: ``python -m bench.suites.attention``. Must not import: exporter, calibration.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from bench.machine.description import describe_machine, probe_gemm_peak
from bench.table import render_markdown
from bench.timing.compare import compare
from bench.timing.measure import MeasurePlan, measure_interleaved

LAYERS, HEADS, SIZE = 6, 12, 32
HIDDEN = HEADS * SIZE
LOWEST = float(np.finfo(np.float32).min)
SHAPES = ((1, 16), (1, 128), (8, 128), (32, 64))
BASE = "MultiHeadAttention, lowest float"
# Operator, value added at masked keys, whether a quarter of the keys is masked.
SUBJECTS: Mapping[str, tuple[str, float, bool]] = {
    BASE: ("MultiHeadAttention", LOWEST, True),
    "MultiHeadAttention, -60": ("MultiHeadAttention", -60.0, True),
    "Attention, lowest float": ("Attention", LOWEST, True),
    "Attention, -60": ("Attention", -60.0, True),
    "Attention, nothing masked": ("Attention", LOWEST, False),
}


def build_model(operator: str) -> onnx.ModelProto:
    """Return LAYERS attention nodes in a row: x and bias in, x out."""
    nodes, current = [], "x"
    for layer in range(LAYERS):
        output = f"x{layer}"
        if operator == "Attention":
            heads = {"q_num_heads": HEADS, "kv_num_heads": HEADS}
            nodes.append(helper.make_node("Attention", [current, "x", "x", "bias"], [output], **heads))
        else:
            inputs = [current, "x", "x", "", "", "bias"]
            nodes.append(helper.make_node(operator, inputs, [output], domain="com.microsoft", num_heads=HEADS))
        current = output
    hidden, square = ["batch", "sequence", HIDDEN], ["batch", 1, "sequence", "sequence"]
    graph = helper.make_graph(
        nodes,
        "attention",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, hidden),
            helper.make_tensor_value_info("bias", TensorProto.FLOAT, square),
        ],
        [helper.make_tensor_value_info(current, TensorProto.FLOAT, hidden)],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def make_feeds(shape: tuple[int, int], fill: float, *, padded: bool) -> dict[str, np.ndarray]:
    """Return random activations and the bias [batch, 1, sequence, sequence], with a quarter of the keys at ``fill``."""
    batch, sequence = shape
    bias = np.zeros((batch, 1, sequence, sequence), np.float32)
    if padded:
        bias[..., sequence - sequence // 4 :] = fill
    x = np.random.default_rng(0).standard_normal((batch, sequence, HIDDEN)).astype(np.float32)
    return {"x": x, "bias": bias}


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="bench.suites.attention", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=15)
    options = parser.parse_args(arguments)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    sessions = {
        operator: onnxruntime.InferenceSession(
            build_model(operator).SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        for operator in ("Attention", "MultiHeadAttention")
    }
    machine, columns = describe_machine(options.threads), []
    for shape in SHAPES:
        subjects = {
            name: partial(sessions[operator].run, None, make_feeds(shape, fill, padded=padded))
            for name, (operator, fill, padded) in SUBJECTS.items()
        }
        samples = measure_interleaved(subjects, MeasurePlan(blocks=options.blocks), machine=machine)
        columns.append({name: compare(samples[BASE], samples[name]) for name in SUBJECTS})
    rows = [
        [name, *(f"{column[name].ratio:.2f} [{column[name].low:.2f}, {column[name].high:.2f}]" for column in columns)]
        for name in SUBJECTS
    ]
    sys.stdout.write(f"matrix product: {probe_gemm_peak(options.threads):.0f} GFLOP/s\n\n")
    sys.stdout.write(render_markdown(["speed", *(f"{b}x{s}" for b, s in SHAPES)], rows) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
