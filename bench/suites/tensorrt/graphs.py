"""Every graph of the TensorRT suite: ours, and what other tools make of the same float model and the same texts.

In: the float model, calibration texts, an exported directory. Out: an ONNX file by key, in the table's order. What
other tools make is made once and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bench.peers import modelopt, onnxruntime_tools, stepdown_cli
from bench.peers.build_once import Built, build_once
from bench.subjects.texts import Feeds, encode_texts, open_tokenizer, select_feeds
from bench.suites.tensorrt.plans import PROFILE
from runtimes.artifact import hash_file
from runtimes.errors import CorruptArtifact
from runtimes.ort import describe_onnx

FLOAT, OURS = "float", "stepdown"
TITLES: Mapping[str, str] = {
    FLOAT: "float32, as traced",
    OURS: "**stepdown, int8 and FP16**",
    "stepdown-fp32": "stepdown, int8 and FP32",
    "stepdown-attention": "stepdown, int8 and FP16, attention products in int8",
    "ort-linears": "ONNX Runtime, linears only, no output Q, min-max",
    "ort-linears-percentile": "ONNX Runtime, linears only, no output Q, percentile",
    "ort-default": "ONNX Runtime, default placement, min-max",
    "modelopt-max": "NVIDIA ModelOpt, max",
    "modelopt-entropy": "NVIDIA ModelOpt, entropy",
}
PEERS = tuple(key for key in TITLES if key.startswith(("ort-", "modelopt-")))
MAX_LENGTH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What graphs are made of.

    Attributes:
        checkpoint: The Hugging Face directory.
        float_model: The same as ONNX, traced.
        lines: The texts that everybody calibrates with.
        texts: A file with these texts, one a line.
        exported: A directory that ``stepdown export`` wrote, to be used in place of exporting now.
        work: Where what is made is kept.
        cache: Where tools have their environments.
        threads: Of an export.
    """

    checkpoint: Path
    float_model: Path
    lines: tuple[str, ...]
    texts: Path
    exported: Path | None
    work: Path
    cache: Path
    threads: int


def make_graph(key: str, given: Ingredients) -> Built:
    """Make one graph.

    Raises:
        MissingDependency: the tool cannot be installed.
        UnsupportedModel: the tool failed; the message ends with what it said.
    """
    makers: Mapping[str, Callable[[], Built]] = {
        FLOAT: lambda: Built(path=given.float_model, seconds=None),
        OURS: lambda: _find_export(given) if given.exported is not None else _export(given, OURS),
        "stepdown-fp32": lambda: _export(given, "stepdown-fp32", "--rest", "fp32"),
        "stepdown-attention": lambda: _export(given, "stepdown-attention", "--int8-attention"),
        "ort-linears": lambda: _quantise(given, "ort-linears", linears_only=True),
        "ort-linears-percentile": lambda: _quantise(
            given, "ort-linears-percentile", linears_only=True, method="percentile"
        ),
        "ort-default": lambda: _quantise(given, "ort-default", linears_only=False),
        "modelopt-max": lambda: _run_modelopt(given, "modelopt-max", "max"),
        "modelopt-entropy": lambda: _run_modelopt(given, "modelopt-entropy", "entropy"),
    }
    return makers[key]()


def _export(given: Ingredients, name: str, *options: str) -> Built:
    # TensorRT-RTX also where TensorRT is installed: it alone builds for named GPUs, and its plans can be read.
    words: tuple[str, ...] = (
        "--precision",
        "int8",
        "--samples",
        str(len(given.lines)),
        "--max-length",
        str(MAX_LENGTH),
    )
    words += ("--trt-library", "tensorrt-rtx", "--profile", str(PROFILE), *options)
    directory = given.work / name
    built = stepdown_cli.export(
        given.checkpoint, given.texts, directory, threads=given.threads, target="tensorrt", options=words
    )
    return Built(path=_find_graph(directory), seconds=built.seconds)


def _find_export(given: Ingredients) -> Built:
    assert given.exported is not None
    return Built(path=_find_graph(given.exported), seconds=None)


def _find_graph(directory: Path) -> Path:
    """The graph that an exported plan was built from."""
    graph = directory / "tensorrt" / "model.onnx"
    if not graph.is_file():
        raise CorruptArtifact("there is no TensorRT graph in it", where=str(directory), cure="export it again")
    return graph


def _quantise(
    given: Ingredients, name: str, *, linears_only: bool, method: onnxruntime_tools.Method = "minmax"
) -> Built:
    def make(out: Path) -> None:
        padded = method == "percentile"
        inputs = describe_onnx(given.float_model).inputs
        samples = [select_feeds(inputs, feeds) for feeds in _encode(given, padded=padded)]
        onnxruntime_tools.quantize_for_tensorrt(
            given.float_model, out, samples, linears_only=linears_only, method=method
        )

    return build_once(given.work, name, _list_dependencies(given, f"onnxruntime {version('onnxruntime')}"), make)


def _run_modelopt(given: Ingredients, name: str, method: modelopt.Method) -> Built:
    python = modelopt.open_modelopt(given.cache)

    def make(out: Path) -> None:
        inputs = describe_onnx(given.float_model).inputs
        encoded = _encode(given, padded=True)
        samples = {spec.name: np.concatenate([feeds[spec.name] for feeds in encoded]) for spec in inputs}
        modelopt.quantize(python, given.float_model, out, samples, method=method)

    return build_once(given.work, name, _list_dependencies(given, " ".join(modelopt.REQUIREMENTS)), make)


def _encode(given: Ingredients, *, padded: bool) -> list[Feeds]:
    """Encode each text by itself, at its own length or, for tools that stack samples, at the longest."""
    tokenizer = open_tokenizer(given.checkpoint / "tokenizer.json", max_length=MAX_LENGTH)
    if padded:
        tokenizer.enable_padding(length=MAX_LENGTH)
    return [encode_texts(tokenizer, [text]) for text in given.lines]


def _list_dependencies(given: Ingredients, tool: str) -> dict[str, str]:
    return {"model": hash_file(given.float_model), "texts": hash_file(given.texts), "tool": tool}
