"""A small exported directory, made without torch: a classifier that counts the words "good" and "bad"."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from runtimes.artifact import Manifest, record_files, write_manifest

WORDS = ("[PAD]", "[UNK]", "good", "bad", "film", "very", "the", "a")


def write_tokenizer(directory: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))


def write_classifier(path: Path) -> None:
    """Write a model whose logits count the words "good" and "bad"."""
    table = np.zeros((len(WORDS), 2), np.float32)
    table[WORDS.index("bad"), 0] = table[WORDS.index("good"), 1] = 4.0
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "weight"], ["mixed"]),
        helper.make_node("ReduceSum", ["mixed", "axis"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.eye(2, dtype=np.float32), "weight"),
            numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def write_texts(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_artifact(directory: Path) -> Path:
    (directory / "onnxruntime").mkdir(parents=True)
    write_classifier(directory / "onnxruntime" / "model.onnx")
    write_tokenizer(directory)
    (directory / "config.json").write_text(json.dumps({"id2label": {"0": "negative", "1": "positive"}}))
    seal(directory)
    return directory


def seal(directory: Path, isa: str = "avx2", oldest: str = "1.24") -> None:
    """Write the manifest of what lies in the directory."""
    description = {
        "path": "onnxruntime/model.onnx",
        "isa": isa,
        "provider": "CPUExecutionProvider",
        "exact_on_any_cpu": isa == "avx2",
        "requires": {"onnxruntime": f">={oldest}"},
    }
    manifest = Manifest(
        tool={"name": "stepdown"},
        source={"task": "text-classification"},
        recipe={},
        steps=(),
        artifacts={"onnxruntime": description},
        files=record_files(directory),
        machine={},
    )
    write_manifest(directory, manifest)
