"""A decoder of two layers that generates in milliseconds, as an exported directory: real in every part, small in all.

Bytes are its tokens, so that a character of several bytes comes in several pieces. Its arithmetic is written out in
standard operators, with the names of a decoder's inputs and outputs; `reference` answers without a cache, through
ONNX Runtime alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from exporter.onnxruntime.genai_config import GenerationFacts, write_genai_config
from runtimes.artifact import Manifest, record_files, write_manifest
from runtimes.generation.cache_spec import CacheSpec
from runtimes.generation.feeds import make_step

CACHE = CacheSpec(layers=2, kv_heads=1, head_dim=8)
CONTEXT = 64
HEADS, WIDTH = 2, 16
SPECIAL = ("<pad>", "<s>", "<end>")
PAD, START, END = range(3)
VOCABULARY = 256 + len(SPECIAL)
TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


def write_export(directory: Path, *, seed: int = 0) -> Path:
    """Write what generation needs into ``directory``, and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(make_decoder(seed), directory / "model.onnx")
    write_tokenizer(directory)
    write_genai_config(directory, FACTS)
    return directory


FACTS = GenerationFacts(
    cache=CACHE,
    vocabulary=VOCABULARY,
    context=CONTEXT,
    stop_ids=(END,),
    padding_id=PAD,
    start_id=START,
)


def write_tokenizer(directory: Path) -> None:
    """Write a tokenizer of bytes, and a chat template."""
    names = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[]))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "<end>", "pad_token": "<pad>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "chat_template.jinja").write_text(TEMPLATE)


def reference(directory: Path, ids: Sequence[int], count: int, stop: int = END) -> list[int]:
    """Return the likeliest tokens behind a prompt, each from the whole sequence: no cache, and no library's loop."""
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"))
    sequence = list(ids)
    for _ in range(count):
        rows = np.array([sequence], np.int64)
        logits = session.run(["logits"], make_step(rows, np.ones_like(rows), CACHE.empty(1)))[0]
        sequence.append(int(logits[0, -1].argmax()))
        if sequence[-1] == stop:
            break
    return sequence[len(ids) :]


def make_decoder(seed: int) -> onnx.ModelProto:
    """Make the graph, of weights drawn by ``seed``."""
    drawn = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    def weight(name: str, *shape: int) -> str:
        return constant(name, drawn.normal(size=shape).astype(np.float32))

    def add(op: str, *inputs: str, out: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, list(inputs), [out], **attributes))
        return out

    one = constant("one", np.array([1], np.int64))
    # Who may see whom: keys up to a query's own place, but padding.
    total = add("Shape", "attention_mask", out="total", start=1, end=2)
    fresh = add("Shape", "input_ids", out="fresh", start=1, end=2)
    zero, unit = constant("zero", np.array(0, np.int64)), constant("unit", np.array(1, np.int64))
    keys = add("Range", zero, add("Squeeze", total, out="total_number"), unit, out="keys")
    shifted = add("Sub", total, fresh, out="behind")
    own = add("Range", zero, add("Squeeze", fresh, out="fresh_number"), unit, out="own")
    queries = add("Unsqueeze", add("Add", own, shifted, out="places"), one, out="queries")
    causal = add("LessOrEqual", keys, queries, out="causal")
    kept = add("Cast", "attention_mask", out="kept", to=TensorProto.BOOL)
    spread = add("Unsqueeze", kept, constant("axes", np.array([1, 2], np.int64)), out="spread")
    allowed = add("And", causal, spread, out="allowed")
    low = constant("low", np.array(-1e9, np.float32))

    split = constant("split", np.array([0, 0, -1, CACHE.head_dim], np.int64))
    joined = constant("joined", np.array([0, 0, -1], np.int64))
    hidden = add(
        "Add",
        add("Gather", weight("embedding", VOCABULARY, WIDTH), "input_ids", out="embedded"),
        add("Gather", weight("places_table", CONTEXT, WIDTH), "position_ids", out="placed"),
        out="hidden",
    )
    for layer in range(CACHE.layers):

        def project(kind: str, width: int, layer: int = layer, hidden: str = hidden) -> str:
            flat = add("MatMul", hidden, weight(f"w{kind}{layer}", WIDTH, width), out=f"{kind}{layer}_flat")
            heads = add("Reshape", flat, split, out=f"{kind}{layer}_split")
            return add("Transpose", heads, out=f"{kind}{layer}", perm=[0, 2, 1, 3])

        query = project("q", HEADS * CACHE.head_dim)
        pair = {}
        for kind in ("key", "value"):
            fresh_part = project(kind, CACHE.kv_heads * CACHE.head_dim)
            past = f"past_key_values.{layer}.{kind}"
            pair[kind] = add("Concat", past, fresh_part, out=f"present.{layer}.{kind}", axis=2)
        turned = add("Transpose", pair["key"], out=f"turned{layer}", perm=[0, 1, 3, 2])
        scores = add("MatMul", query, turned, out=f"scores{layer}")
        scaled = add("Mul", scores, constant(f"scale{layer}", np.array(0.1, np.float32)), out=f"scaled{layer}")
        masked = add("Where", allowed, scaled, low, out=f"masked{layer}")
        shares = add("Softmax", masked, out=f"shares{layer}", axis=-1)
        mixed = add("MatMul", shares, pair["value"], out=f"mixed{layer}")
        back = add("Transpose", mixed, out=f"back{layer}", perm=[0, 2, 1, 3])
        flat = add("Reshape", back, joined, out=f"flat{layer}")
        output = add("MatMul", flat, weight(f"wo{layer}", WIDTH, WIDTH), out=f"output{layer}")
        hidden = add("Tanh", add("Add", hidden, output, out=f"sum{layer}"), out=f"hidden{layer + 1}")
    add("MatMul", hidden, weight("head", WIDTH, VOCABULARY), out="logits")

    def declare(name: str, kind: int, *shape: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    def declare_cache(name: str, length: str) -> onnx.ValueInfoProto:
        return declare(name, TensorProto.FLOAT, "batch", CACHE.kv_heads, length, CACHE.head_dim)

    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            declare("input_ids", TensorProto.INT64, "batch", "sequence"),
            declare("attention_mask", TensorProto.INT64, "batch", "total"),
            declare("position_ids", TensorProto.INT64, "batch", "sequence"),
            *(declare_cache(past, "past") for past, _ in CACHE.names()),
        ],
        [
            declare("logits", TensorProto.FLOAT, "batch", "sequence", VOCABULARY),
            *(declare_cache(present, "total") for _, present in CACHE.names()),
        ],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def write_artifact(directory: Path, **entry: object) -> Path:
    """Write what `stepdown export` writes of a decoder; ``entry`` changes what its manifest says of the model."""
    write_export(directory / "onnxruntime")
    shutil.copyfile(directory / "onnxruntime" / "tokenizer.json", directory / "tokenizer.json")
    seal(directory, **entry)
    return directory


def seal(directory: Path, *, task: str = "text-generation", **entry: object) -> None:
    """Write the manifest of what lies in the directory."""
    described = {
        "path": "onnxruntime/model.onnx",
        "isa": "avx2",
        "provider": "CPUExecutionProvider",
        "exact_on_any_cpu": True,
        "requires": {"onnxruntime": ">=1.24"},
    }
    manifest = Manifest(
        tool={"name": "stepdown"},
        source={"task": task},
        recipe={},
        steps=(),
        artifacts={"onnxruntime": {**described, **entry}},
        files=record_files(directory),
        machine={},
    )
    write_manifest(directory, manifest)


def change_config(directory: Path, **changes: object) -> None:
    """Let ``genai_config.json`` say other things of the model."""
    path = directory / "genai_config.json"
    told = json.loads(path.read_text())
    told["model"] |= {name: value for name, value in changes.items() if name in told["model"]}
    told["model"]["decoder"] |= {name: value for name, value in changes.items() if name not in told["model"]}
    path.write_text(json.dumps(told))
