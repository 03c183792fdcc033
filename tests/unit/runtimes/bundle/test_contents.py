"""What an unpacked bundle may hold: a good one passes, and each thing that must never be loaded is refused."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from onnx import helper
from safetensors.numpy import save

from runtimes.bundle.contents import check_contents
from runtimes.bundle.description import Rebuild
from runtimes.errors import CorruptArtifact
from tests.unit.runtimes.bundle.real_bundle import (
    TABLE,
    describe,
    hash_bytes,
    make_model,
    make_tokenizer,
    write_home,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    home = tmp_path_factory.mktemp("whole")
    write_home(home)
    return home


@pytest.fixture
def home(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "home")


@pytest.fixture
def variant(home):
    return home / "variants" / "here"


def refuse(home, message, **changes):
    with pytest.raises(CorruptArtifact, match=message) as caught:
        check_contents(home, describe(home, **changes))
    assert (caught.value.exit_code, bool(caught.value.where), bool(caught.value.cure)) == (8, True, True)
    return caught.value


def test_a_good_bundle_passes(home):
    check_contents(home, describe(home))


def test_variants_that_were_not_unpacked_are_passed_over(home, variant):
    description = describe(home)
    shutil.rmtree(variant)
    check_contents(home, description, variants=())


# External data

SIZE = str(TABLE.nbytes)


def put_external(variant, entries, data=None):
    (variant / "model.onnx").write_bytes(make_model(external=entries))
    if data is not None:
        (variant / "model.onnx.data").write_bytes(data)


@pytest.mark.parametrize("entries", [[], [("offset", "0"), ("length", SIZE)], [("length", SIZE)], [("offset", "8")]])
def test_external_data_inside_the_bundle_passes(home, variant, entries):
    put_external(variant, [("location", "model.onnx.data"), *entries], bytes(8) + TABLE.tobytes())
    check_contents(home, describe(home))


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../../shared/config.json",
        "../other/model.onnx.data",
        "./model.onnx.data",
        "a/../model.onnx.data",
        "*/_ORT_MEM_ADDR_/*",
        "C:\\data",
        "",
        ".hidden",
    ],
)
def test_external_data_outside_of_the_bundle_is_refused(home, variant, location):
    put_external(variant, [("location", location)], TABLE.tobytes())
    refuse(home, "not allowed")


def test_external_data_that_is_not_listed_is_refused(home, variant):
    put_external(variant, [("location", "model.onnx.data")], TABLE.tobytes())
    description = describe(home)
    (variant,) = description.variants
    files = {path: sha256 for path, sha256 in variant.files.items() if path != "model.onnx.data"}
    with pytest.raises(CorruptArtifact, match=r"'model.onnx.data' is not listed"):
        check_contents(home, replace(description, variants=(replace(variant, files=files),)))


def test_a_model_is_no_external_data_of_itself(home, variant):
    put_external(variant, [("location", "model.onnx"), ("length", SIZE)])
    refuse(home, "is not listed")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("offset", "-8")], "no number"),
        ([("offset", "0x8")], "no number"),
        ([("offset", "8")], "ends at byte 72"),
        ([("offset", "9" * 18)], "ends at byte"),
        ([("offset", "9" * 400)], "no number"),
        ([("offset", "٣")], "no number"),
        ([("length", "1")], "1 bytes, 64 belong"),
        ([("length", "65")], "65 bytes, 64 belong"),
        ([("location", "other")], "not whole"),
        ([("basepath", "/etc")], "not known"),
    ],
)
def test_external_data_outside_of_its_file_is_refused(home, variant, entries, message):
    put_external(variant, [("location", "model.onnx.data"), *entries], TABLE.tobytes())
    refuse(home, message)


def test_external_data_without_a_place_is_refused(home, variant):
    put_external(variant, [])
    refuse(home, "not whole")


def test_the_graph_to_build_a_plan_from_is_looked_at_too(home, variant):
    (variant / "lowered.onnx").write_bytes(make_model(external=[("location", "../x")]))
    refuse(home, "not allowed", rebuild=Rebuild(graph="lowered.onnx", options={}))


# Operators and kernels


def make_custom(domain, name="Spmm", extra=()):
    node = helper.make_node(name, ["input_ids"], ["logits"], domain=domain)
    return make_model(nodes=[node, *extra], opsets=[domain] if domain else [])


def put_library(variant, machine=62, head=b"\x7fELF\x02\x01\x01", kind=3):
    (variant / "kernels").mkdir()
    data = head.ljust(16, b"\0") + kind.to_bytes(2, "little") + machine.to_bytes(2, "little") + bytes(100)
    (variant / "kernels" / "libstepdown_sparse.so").write_bytes(data)
    return {"sparse_kernels": {"version": "0.1.0", "sha256": hash_bytes(data)}}


def x86(home):
    return {"requires": describe(home).variants[0].requires.__class__(
        arch="x86_64", isa=None, onnxruntime=">=1.24", memory_bytes=0, sm=None, tensorrt=None
    )}  # fmt: skip


@pytest.mark.parametrize("domain", ["com.evil", "ai.onnx.contrib", "ai.stepdown.other", "AI.ONNX"])
def test_operators_of_unknown_libraries_are_refused(home, variant, domain):
    (variant / "model.onnx").write_bytes(make_custom(domain))
    refuse(home, "nothing here stands for")


@pytest.mark.parametrize("name", ["EPContext", "PythonOp"])
def test_operators_that_open_files_or_run_code_are_refused(home, variant, name):
    (variant / "model.onnx").write_bytes(make_custom("com.microsoft", name))
    refuse(home, "opens files or runs code")


def test_operators_of_kernels_that_are_not_there_are_refused(home, variant):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    refuse(home, "kernels that are not in the bundle")


def test_kernels_that_are_listed_and_named_pass(home, variant):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    artifact = put_library(variant)
    check_contents(home, describe(home, artifact=artifact, **x86(home)))


def test_kernels_that_the_artifact_does_not_name_are_refused(home, variant):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    put_library(variant)
    refuse(home, "does not name", **x86(home))


def test_kernels_under_another_hash_are_refused(home, variant):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    artifact = put_library(variant)
    artifact["sparse_kernels"]["sha256"] = "0" * 64
    error = refuse(home, "not the one that the artifact names", artifact=artifact, **x86(home))
    assert error.expected == "0" * 64


@pytest.mark.parametrize(
    "named", [3, {}, {"version": "0.1.0"}, {"version": "0.1.0", "sha256": "x"}, {"version": "x", "sha256": "0" * 64}]
)
def test_kernels_that_are_named_badly_are_refused(home, variant, named):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    put_library(variant)
    refuse(home, "here: ", artifact={"sparse_kernels": named}, **x86(home))


def test_kernels_without_use_are_refused(home, variant):
    refuse(home, "no use for", artifact=put_library(variant), **x86(home))


def test_a_second_library_is_refused(home, variant):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    artifact = put_library(variant)
    (variant / "kernels" / "more.so").write_bytes(b"x")
    refuse(home, "one shared library", artifact=artifact, **x86(home))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"machine": 183}, "expected x86_64, found aarch64"),
        ({"machine": 3}, "machine 3"),
        ({"head": b"MZ"}, "not a shared library"),
        ({"head": b"\x7fELF\x01\x01"}, "64-bit"),
        ({"head": b"\x7fELF\x02\x02"}, "64-bit"),
        ({"kind": 2}, "64-bit"),
    ],
)
def test_libraries_for_other_machines_are_refused(home, variant, changes, message):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    refuse(home, message, artifact=put_library(variant, **changes), **x86(home))


def test_a_library_elsewhere_is_refused(home, variant):
    put_library(variant)
    (variant / "kernels" / "libstepdown_sparse.so").rename(variant / "lib.so")
    refuse(home, "no files of this kind")


# Kinds of files


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    "name", ["model.pkl", "model.pt", "model.bin", "weights.npz", "x.npy", "x.joblib", "run.sh", "x.py"]
)
def test_files_of_other_kinds_are_refused(home, variant, name):
    (variant / name).write_bytes(b"x")
    refuse(home, "no files of this kind")
    (variant / name).unlink()
    (home / "shared" / name).write_bytes(b"x")
    refuse(home, "no files of this kind")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "place", ["shared/LICENSE", "shared/NOTICE.txt", "shared/config.json", "variants/here/notes.md"]
)
def test_pickles_under_other_names_are_refused(home, protocol, place):
    (home / place).write_bytes(pickle.dumps(Evil(), protocol))
    refuse(home, "pickles|not a text|cannot be read")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("content", [Evil(), {"w": np.zeros(1 << 16)}, [Evil()] + [1.5] * 100_000])
def test_pickles_as_external_data_are_refused(home, variant, protocol, content):
    data = pickle.dumps(content, protocol)
    (variant / "model.onnx.data").write_bytes(data)
    put_external(variant, [("location", "model.onnx.data")], data.ljust(TABLE.nbytes, b"\0"))
    refuse(home, "pickles")


def test_archives_as_external_data_are_refused(home, variant):
    put_external(variant, [("location", "model.onnx.data")], b"PK\x03\x04" + bytes(100))
    refuse(home, "pickles")


def test_weights_that_begin_like_a_pickle_pass(home, variant):
    put_external(variant, [("location", "model.onnx.data")], b"\x80\x04" + TABLE.tobytes())
    check_contents(home, describe(home))


def test_texts_are_texts(home):
    for data in (b"\xff\xfe", b"a\0b", b"x" * (5 << 20)):
        (home / "shared" / "LICENSE").write_bytes(data)
        refuse(home, "text")


@pytest.mark.parametrize("text", ["0000", "1" * 200_000, "N", "no pickle."])
def test_texts_of_a_pickles_letters_pass(home, text):
    (home / "shared" / "NOTICE").write_text(text)
    check_contents(home, describe(home))


@pytest.mark.parametrize("data", [b"{", b'{"a": NaN}', b"[" * 1000, b'{"a": 1, "a": 2}'])
def test_json_is_json(home, data):
    (home / "shared" / "report.json").write_bytes(data)
    refuse(home, "report.json")


# Lies


@pytest.mark.parametrize(
    "artifact",
    [
        {"inputs": [{"name": "input_ids", "dtype": "int32", "shape": ["batch", "sequence"]}]},
        {"inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", 4]}]},
        {"inputs": []},
        {"outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 3]}]},
        {"outputs": [{"name": "other", "dtype": "float32", "shape": ["batch", 2]}]},
    ],
)
def test_lies_about_shapes_are_refused(home, artifact):
    error = refuse(home, "tell the truth", artifact=artifact)
    assert error.expected != error.found


def test_a_model_that_is_none_is_refused(home, variant):
    for data in (b"x", b"", make_model()[:50]):
        (variant / "model.onnx").write_bytes(data)
        refuse(home, "empty|not a readable ONNX model|expected")


def test_a_model_of_another_kind_is_refused(home, variant):
    (variant / "model.onnx").rename(variant / "model.bin")
    refuse(home, "runs no such model", model="model.bin")
    (variant / "model.bin").rename(variant / "model.plan")
    refuse(home, "runs no such model", model="model.plan")


def test_a_plan_needs_a_record_of_itself(home, variant):
    (variant / "model.onnx").rename(variant / "model.plan")
    plan = {"model": "model.plan", "runtime": "tensorrt"}
    refuse(home, "no record beside it", **plan)
    (variant / "model.plan.json").write_text("[" * 100 + "]" * 100)
    refuse(home, "deeper", **plan)
    (variant / "model.plan.json").write_text("{}")
    refuse(home, "record cannot be read", **plan)
    (variant / "model.plan.json").write_text(json.dumps(make_record("0" * 64)))
    refuse(home, "record is of another plan", **plan)
    sha256 = hash_bytes((variant / "model.plan").read_bytes())
    (variant / "model.plan.json").write_text(json.dumps(make_record(sha256)))
    check_contents(home, describe(home, **plan))
    refuse(home, "tell the truth", artifact={"inputs": []}, **plan)


def make_record(sha256):
    specs = describe_specs_of()
    return {
        "library": "tensorrt",
        "version": "10.16.1",
        "sms": [89],
        "hardware": "this",
        "version_compatible": False,
        "profiles": [],
        "flags": [],
        "settings": {},
        "model_sha256": "0" * 64,
        "plan_sha256": sha256,
        "inputs": specs[0],
        "outputs": specs[1],
        "expected": {"int8": [], "sparse": []},
        "repeats": False,
        "schema": 1,
    }


def describe_specs_of():
    return (
        [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "sequence"]}],
        [{"name": "logits", "dtype": "float32", "shape": ["batch", 2]}],
    )


# Probes

GOOD = save({"input_ids": np.zeros((1, 3), np.int64)})


def header(entries, data=b""):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(start, stop, shape=(1,), dtype="I64"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header length"),
        (GOOD[:7], "header length"),
        (GOOD[:20], "header length"),
        (GOOD[:-1], "which is not what its shape takes"),
        (GOOD + b"\0", "follows"),
        (b"\xff" * 8 + GOOD[8:], "header length"),
        (header([]), "object"),
        (header({"a": 1}), "object"),
        (header({"a": entry(0, 8, dtype="BF16")}, bytes(8)), "cannot be read"),
        (header({"a": entry(0, 8, dtype="O")}, bytes(8)), "cannot be read"),
        (header({"a": entry(0, 8, (2,))}, bytes(8)), "not what its shape"),
        (header({"a": entry(8, 0, (-1,))}, bytes(8)), "no size"),
        (header({"a": entry(0, 8, ("1",))}, bytes(8)), "no size"),
        (header({"a": entry(0, 8, (1,) * 17)}, bytes(8)), "cannot be read"),
        (header({"a": entry(0, 0, (0, 2**52, 2**52))}), "cannot be"),
        (header({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)), "overlap"),
        (header({"a": entry(8, 16)}, bytes(16)), "holes"),
        (header({"a": {**entry(0, 8), "more": 1}}, bytes(8)), "unknown"),
        (header({"a": entry(0, 1, (1,), "BOOL")}, b"\2"), "truth value"),
        (header({"other": entry(0, 8)}, bytes(8)), "of another model"),
        (header({"input_ids": entry(0, 4, (1,), "I32")}, bytes(4)), "of another model"),
    ],
)
def test_probes_are_read_strictly(home, variant, data, message):
    (variant / "probe" / "inputs.safetensors").write_bytes(data)
    refuse(home, message)


def test_metadata_of_a_probe_is_passed_over(home, variant):
    (variant / "probe" / "inputs.safetensors").write_bytes(
        header({"__metadata__": {"a": "b"}, "input_ids": entry(0, 8, (1, 1))}, bytes(8))
    )
    check_contents(home, describe(home))


# Tokenizers


def change(document, path, value):
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model",), None, "no model"),
        (("more",), 1, "unknown part"),
        (("model", "vocab", "good"), -1, "no number of a word"),
        (("model", "vocab", "good"), "2", "no number of a word"),
        (("model", "vocab", "good"), 1 << 40, "no number of a word"),
        (("model", "type"), "Pickle", "not a tokenizer"),
        (("padding",), {"strategy": {"Fixed": 1 << 40}, "direction": "Right"}, "no size"),
        (("padding",), {"strategy": "BatchLongest", "pad_to_multiple_of": 0}, "nothing to pad to"),
        (("truncation",), {"max_length": 1 << 60, "stride": 0}, "no size"),
        (("normalizer",), {"type": "Replace", "pattern": {"Regex": "a" * 20_000}, "content": ""}, "a pattern of more"),
        (("normalizer",), {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}, "not a tokenizer"),
        (("pre_tokenizer",), {"type": "Sequence", "pretokenizers": [{"type": "None such"}]}, "not a tokenizer"),
    ],
)
def test_tokenizers_that_ask_for_too_much_are_refused(home, path, value, message):
    document = make_tokenizer()
    change(document, path, value)
    (home / "shared" / "tokenizer.json").write_text(json.dumps(document))
    refuse(home, message)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"model": {}}', b"[" * 10_000, b"\xff"])
def test_what_is_no_tokenizer_is_refused(home, data):
    (home / "shared" / "tokenizer.json").write_bytes(data)
    refuse(home, "tokenizer")


def test_a_tokenizer_has_a_size(home, monkeypatch):
    monkeypatch.setattr("runtimes.bundle.tokenizer_safety.MAX_FILE_BYTES", 100)
    refuse(home, "more than 100 bytes")
    monkeypatch.undo()
    monkeypatch.setattr("runtimes.bundle.tokenizer_safety._MAX_WORDS", 3)
    refuse(home, "8 entries, 3 are allowed")


def test_a_panic_of_the_library_is_a_refusal(home, monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(_data):
        raise PanicException("index out of bounds")

    monkeypatch.setattr("tokenizers.Tokenizer", type("Tokenizer", (), {"from_buffer": staticmethod(panic)}))
    refuse(home, "index out of bounds")
