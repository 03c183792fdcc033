"""A bundle whose files mean something: a classifier of eight words, its tokenizer and a probe; and ways to spoil it."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from runtimes.bundle.archive_writer import write_archive
from runtimes.bundle.description import BundleDescription, Probe, Requirements, Variant
from runtimes.isa import detect
from runtimes.ort import OnnxRuntime, describe_onnx
from runtimes.parity import Tolerance

WORDS = ("[PAD]", "[UNK]", "good", "bad", "film", "very", "the", "a")
TABLE = np.linspace(-2, 2, 2 * len(WORDS), dtype=np.float32).reshape(-1, 2)


def make_model(*, external=None, nodes=None, opsets=()):
    """The model; with ``external``, the entries of its table's place."""
    table = numpy_helper.from_array(TABLE, "table")
    if external is not None:
        table.ClearField("raw_data")
        table.data_location = TensorProto.EXTERNAL
        for key, value in external:
            table.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        nodes
        or [
            helper.make_node("Gather", ["table", "input_ids"], ["hidden"]),
            helper.make_node("ReduceSum", ["hidden", "axis"], ["logits"], keepdims=0),
        ],
        "classifier",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [table, numpy_helper.from_array(np.array([1]), "axis")],
    )
    ids = [helper.make_opsetid("", 18), *(helper.make_opsetid(domain, 1) for domain in opsets)]
    return helper.make_model(graph, opset_imports=ids, ir_version=10).SerializeToString()


def make_custom(domain, name="Spmm", extra=()):
    node = helper.make_node(name, ["input_ids"], ["logits"], domain=domain)
    return make_model(nodes=[node, *extra], opsets=[domain] if domain else [])


def make_tokenizer():
    """The library's own form of a list of words."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(WORDS)}, "unk_token": "[UNK]"},
    }


def write_home(home):
    """Write an unpacked bundle, all but its description, and return that."""
    folder = home / "variants" / "here"
    (folder / "probe").mkdir(parents=True)
    (home / "shared").mkdir()
    (folder / "model.onnx").write_bytes(make_model())
    inputs = {"input_ids": np.array([[2, 4, 0], [5, 3, 4]], np.int64)}
    session = OnnxRuntime().open(describe_onnx(folder / "model.onnx"))
    save_file(inputs, folder / "probe" / "inputs.safetensors")
    save_file(session.run(inputs), folder / "probe" / "outputs.safetensors")
    session.close()
    (home / "shared" / "tokenizer.json").write_text(json.dumps(make_tokenizer()))
    (home / "shared" / "config.json").write_text(json.dumps({"id2label": {"0": "no", "1": "yes"}}))
    (home / "shared" / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    (home / "shared" / "LICENSE").write_text("Do what you like.\n")
    return describe(home)


def describe(home, **changes):
    """Describe what lies in the folders, whatever it is."""
    files = {path.name: path for path in sorted((home / "shared").iterdir())}
    folder = home / "variants" / "here"
    own = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    hashes = {path: hash_bytes(path.read_bytes()) for path in (*files.values(), *own.values())}
    return BundleDescription(
        name="real",
        version=1,
        tool={"stepdown": "0.1.0"},
        task="text-classification",
        labels=("no", "yes"),
        max_length=16,
        blobs={hashes[path]: path.stat().st_size for path in hashes},
        files={name: hashes[path] for name, path in files.items()},
        variants=(make_variant({name: hashes[path] for name, path in own.items()}, **changes),),
        policy=("cpu",),
        provenance={},
        licence="unknown",
    )


def make_variant(files, **changes):
    artifact = {
        "kind": "onnx",
        "isa": "avx2",
        "exact_on_any_cpu": True,
        "provider": "CPUExecutionProvider",
        "requires": {"onnxruntime": ">=1.24"},
        "inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "sequence"]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 2]}],
    }
    tolerance = Tolerance(atol=1e-5, rtol=1e-5, reason="the same arithmetic")
    variant = Variant(
        name="here",
        runtime="onnxruntime",
        model="model.onnx",
        files=files,
        artifact=artifact,
        device={"name": "here"},
        requires=Requirements(
            arch=detect().arch, isa=None, onnxruntime=">=1.24", memory_bytes=1 << 20, sm=None, tensorrt=None
        ),
        rebuild=None,
        probe=Probe(
            inputs="probe/inputs.safetensors", outputs="probe/outputs.safetensors", tolerance=tolerance, made_with={}
        ),
    )
    artifact_changes = changes.pop("artifact", {})
    return replace(variant, artifact={**artifact, **artifact_changes}, **changes)


def pack(home, path, description=None, signatures=None):
    """Write what lies in the folders as an archive."""
    description = description or describe(home)
    found = {hash_bytes(file.read_bytes()): file for file in home.rglob("*") if file.is_file()}
    write_archive(path, description, found, signatures)
    return path


def hash_bytes(data):
    return hashlib.sha256(data).hexdigest()


def check_model(data):
    """Whether onnx takes it, so that a refusal of ours is not one of a broken test."""
    onnx.checker.check_model(onnx.load_from_string(data))
