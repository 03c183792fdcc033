"""Quantised graphs of other tools, each as the tool writes it when nothing more is asked: what a lint meets.

In: the float encoder, texts. Out: an ONNX file by key, in the table's order; made once and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.peers import modelopt, nncf, onnxruntime_defaults
from bench.peers.build_once import Built, build_once
from bench.peers.onnxruntime_defaults import Preset
from bench.subjects.texts import Feeds, encode_texts, open_tokenizer, select_feeds
from runtimes.artifact import hash_file
from runtimes.ort import describe_onnx

TITLES: Mapping[str, str] = {
    "ort-dynamic": "ONNX Runtime `quantize_dynamic`",
    "optimum-dynamic": "optimum `avx512_vnni`, dynamic",
    "ort-optimised": "ONNX Runtime, the first one as optimised and saved",
    "ort-static": "ONNX Runtime `quantize_static`",
    "ort-u8s8": "ONNX Runtime `quantize_static`, u8s8 per channel",
    "ort-percentile": "ONNX Runtime `quantize_static`, symmetric, percentile",
    "optimum-tensorrt": "optimum `tensorrt`",
    "ort-fp16": "the last one through ONNX Runtime's float16 converter",
    "ort-4-bit": "ONNX Runtime `MatMulNBitsQuantizer`",
    "ort-operators": "ONNX Runtime QOperator format, a convolutional network",
    "modelopt": "NVIDIA ModelOpt, int8",
    "nncf": "NNCF post-training quantisation",
}
MAX_LENGTH = 64
_IMAGES, _SIZE = 8, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What graphs are made of: the float model as ONNX, its tokenizer, texts, and where things are kept."""

    float_model: Path
    tokenizer: Path
    lines: tuple[str, ...]
    work: Path
    cache: Path


def make_graph(key: str, given: Ingredients) -> Built:
    """Make one graph.

    Raises:
        MissingDependency: the tool cannot be installed.
        UnsupportedModel: the tool failed; the message ends with what it said.
    """
    makers: Mapping[str, Callable[[Path], None]] = {
        "ort-dynamic": partial(onnxruntime_defaults.quantise_dynamic, given.float_model),
        "optimum-dynamic": partial(onnxruntime_defaults.quantise_like_optimum, given.float_model),
        "ort-optimised": lambda out: onnxruntime_defaults.optimise(make_graph("ort-dynamic", given).path, out),
        "ort-static": lambda out: _quantise(given, out, "default"),
        "ort-u8s8": lambda out: _quantise(given, out, "u8s8"),
        "ort-percentile": lambda out: _quantise(given, out, "percentile"),
        "optimum-tensorrt": lambda out: _quantise(given, out, "optimum-tensorrt"),
        "ort-fp16": lambda out: onnxruntime_defaults.narrow_floats(make_graph("optimum-tensorrt", given).path, out),
        "ort-4-bit": partial(onnxruntime_defaults.quantise_4_bit, given.float_model),
        "ort-operators": lambda out: _quantise_network(given, out),
        "modelopt": lambda out: _run_modelopt(given, out),
        "nncf": lambda out: _run_nncf(given, out),
    }
    depends_on = {
        "model": hash_file(given.float_model),
        "texts": sha256("\n".join(given.lines).encode()).hexdigest(),
        "onnxruntime": version("onnxruntime"),
        "tools": " ".join((*modelopt.REQUIREMENTS, *nncf.REQUIREMENTS)),
    }
    return build_once(given.work, key, depends_on, makers[key])


def _quantise(given: Ingredients, out: Path, preset: Preset) -> None:
    batches = _encode(given, padded=preset == "percentile")  # it stacks its samples
    onnxruntime_defaults.quantise_static(given.float_model, out, batches, preset)


def _quantise_network(given: Ingredients, out: Path) -> None:
    model = given.work / "network-float.onnx"
    write_network(model)
    images = np.random.default_rng(1).standard_normal((_IMAGES, 1, 3, _SIZE, _SIZE)).astype(np.float32)
    onnxruntime_defaults.quantise_static(model, out, [{"image": image} for image in images], "operators")


def _run_modelopt(given: Ingredients, out: Path) -> None:
    # Entropy is what it takes for int8 where no method is given.
    modelopt.quantize(modelopt.open_modelopt(given.cache), given.float_model, out, _stack(given), method="entropy")


def _run_nncf(given: Ingredients, out: Path) -> None:
    nncf.quantise(nncf.open_nncf(given.cache), given.float_model, out, _stack(given))


def _stack(given: Ingredients) -> dict[str, NDArray[np.int64]]:
    encoded = _encode(given, padded=True)
    return {name: np.concatenate([feeds[name] for feeds in encoded]) for name in encoded[0]}


def _encode(given: Ingredients, *, padded: bool) -> list[Feeds]:
    """Encode each text by itself, at its own length or, for tools that stack samples, at the longest."""
    tokenizer = open_tokenizer(given.tokenizer, max_length=MAX_LENGTH)
    if padded:
        tokenizer.enable_padding(length=MAX_LENGTH)
    inputs = describe_onnx(given.float_model).inputs
    return [select_feeds(inputs, encode_texts(tokenizer, [line])) for line in given.lines]


def write_network(path: Path) -> None:
    """Write a small residual network with random weights: convolutions, a shortcut, pooling, a linear."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    shapes = {"k0": (32, 3, 3, 3), "k1": (32, 32, 3, 3), "k2": (32, 32, 3, 3), "w": (32, 10)}
    arrays = {
        name: (generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }
    arrays |= {f"b{n}": generator.standard_normal(32).astype(np.float32) for n in range(3)}
    arrays["b"] = generator.standard_normal(10).astype(np.float32)
    around = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "k0", "b0"], ["c0"], name="stem", strides=[2, 2], **around),
        helper.make_node("Relu", ["c0"], ["r0"], name="stem_relu"),
        helper.make_node("Conv", ["r0", "k1", "b1"], ["c1"], name="first", **around),
        helper.make_node("Relu", ["c1"], ["r1"], name="first_relu"),
        helper.make_node("Conv", ["r1", "k2", "b2"], ["c2"], name="second", **around),
        helper.make_node("Add", ["c2", "r0"], ["s"], name="shortcut"),
        helper.make_node("Relu", ["s"], ["r2"], name="shortcut_relu"),
        helper.make_node("MaxPool", ["r2"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["g"], name="mean"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w", "b"], ["logits"], name="linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, _SIZE, _SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
