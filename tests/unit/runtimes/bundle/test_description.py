"""bundle.json: what holds together comes back as it went, and anything else is refused with its place."""

import json

import pytest

from runtimes.bundle.description import parse_description
from runtimes.errors import CorruptArtifact
from tests.unit.runtimes.bundle.tiny_bundle import CONTENTS, make_description, make_document, make_variant, sha256


def encode(document):
    return json.dumps(document).encode()


def change(document, path, value):
    """Put a value at a path of keys; ``...`` removes the key."""
    *way, last = path
    for key in way:
        document = document[key]
    if value is ...:
        del document[last]
    else:
        document[last] = value


def test_a_description_comes_back():
    made = make_description()
    assert parse_description(made.to_bytes()) == made
    assert parse_description(made.to_bytes()).to_bytes() == made.to_bytes()


def test_the_bytes_are_plain():
    text = make_description().to_bytes().decode()
    assert text.startswith('{\n "blobs": {\n  "')
    assert text.endswith("}\n")
    assert "pösitive" in text


def test_what_goes_in_and_out_is_read():
    variant = parse_description(make_description().to_bytes()).variants[0]
    assert [(spec.name, spec.shape) for spec in variant.inputs] == [("input_ids", ("batch", "sequence"))]
    assert [(spec.name, spec.shape) for spec in variant.outputs] == [("logits", ("batch", 2))]


def test_files_are_placed_by_variant():
    placed = make_description().placed_files()
    assert placed["shared/tokenizer.json"] == sha256(CONTENTS["tokenizer.json"])
    assert placed["variants/x86-64-avx2/model.onnx"] == sha256(CONTENTS["model.onnx"])


def test_an_unknown_schema_names_the_cure():
    with pytest.raises(CorruptArtifact, match=r"schema 2, this stepdown reads 1") as caught:
        parse_description(encode(make_document(schema=2)))
    assert (caught.value.where, caught.value.exit_code) == ("bundle.json:schema", 8)
    assert "stepdown" in caught.value.cure


VARIANT = ("variants", 0)
HASH = sha256(CONTENTS["model.onnx"])


@pytest.mark.parametrize(
    ("path", "value", "message", "where"),
    [
        (("extra",), 1, "unknown field: 'extra'", "bundle.json"),
        (("name",), ..., "'name' is missing", "bundle.json"),
        (("name",), "../up", "not allowed", "bundle.json:name"),
        (("name",), ".hidden", "not allowed", "bundle.json:name"),
        (("name",), "a" * 65, "not allowed", "bundle.json:name"),
        (("name",), "line\n", "not allowed", "bundle.json:name"),
        (("schema",), True, "whole number", "bundle.json:schema"),
        (("version",), -1, "outside", "bundle.json:version"),
        (("version",), "3", "whole number", "bundle.json:version"),
        (("version",), 2**53, "2\\*\\*53", "bundle.json"),
        (("max_length",), 0, "outside", "bundle.json:max_length"),
        (("labels",), [1], "string", "bundle.json:labels[0]"),
        (("labels",), {}, "list", "bundle.json:labels"),
        (("tool",), {}, "'stepdown' is missing", "bundle.json:tool"),
        (("tool",), {"stepdown": 1}, "string", "bundle.json:tool.stepdown"),
        (("policy",), [], "one", "bundle.json:policy"),
        (("policy",), ["cpu", "cpu"], "once", "bundle.json:policy"),
        (("policy",), ["gpu"], "none of", "bundle.json:policy[0]"),
        (("provenance",), [], "object", "bundle.json:provenance"),
        (("licence",), None, "string", "bundle.json:licence"),
        (("variants",), [], "no variant", "bundle.json:variants"),
        (("blobs", "abc"), 1, "no sha256", "bundle.json:blobs"),
        (("blobs", "0" * 64), 1, "no file's", "bundle.json:blobs"),
        (("blobs", HASH), ..., "not listed", "bundle.json:blobs"),
        (("blobs", HASH), -1, "outside", f"bundle.json:blobs.{HASH}"),
        (("files", "tokenizer.json"), "x", "not allowed", "bundle.json:files.tokenizer.json"),
        ((*VARIANT, "name"), "a/b", "not allowed", "bundle.json:variants[0].name"),
        ((*VARIANT, "runtime"), "pickle", "none of", "bundle.json:variants[0].runtime"),
        ((*VARIANT, "model"), "other.onnx", "not among", "bundle.json:variants[0].model"),
        ((*VARIANT, "probe", "inputs"), "../x", "not among", "bundle.json:variants[0].probe.inputs"),
        ((*VARIANT, "rebuild"), {"graph": "x", "options": {}}, "not among", "bundle.json:variants[0].rebuild.graph"),
        ((*VARIANT, "rebuild"), {"graph": "model.onnx"}, "missing", "bundle.json:variants[0].rebuild"),
        ((*VARIANT, "requires", "isa"), "mmx", "instruction set", "bundle.json:variants[0].requires.isa"),
        ((*VARIANT, "requires", "isa"), [], "instruction set", "bundle.json:variants[0].requires.isa"),
        ((*VARIANT, "requires", "onnxruntime"), "1.24", "not allowed", "bundle.json:variants[0].requires.onnxruntime"),
        ((*VARIANT, "requires", "sm"), "8.9", "not allowed", "bundle.json:variants[0].requires.sm"),
        ((*VARIANT, "requires", "more"), 1, "unknown", "bundle.json:variants[0].requires"),
        ((*VARIANT, "probe", "tolerance", "atol"), -1, "outside", "bundle.json:variants[0].probe.tolerance.atol"),
        ((*VARIANT, "probe", "tolerance", "rtol"), True, "number", "bundle.json:variants[0].probe.tolerance.rtol"),
        ((*VARIANT, "artifact", "inputs"), ..., "missing", "bundle.json:variants[0].artifact"),
        (
            (*VARIANT, "artifact", "inputs", 0, "shape"),
            [-1],
            "neither",
            "bundle.json:variants[0].artifact.inputs[0].shape[0]",
        ),
        (
            (*VARIANT, "artifact", "inputs", 0, "shape"),
            [True],
            "neither",
            "bundle.json:variants[0].artifact.inputs[0].shape[0]",
        ),
    ],
)
def test_what_does_not_hold_together_is_refused_with_its_place(path, value, message, where):
    document = make_document()
    change(document, path, value)
    with pytest.raises(CorruptArtifact, match=message) as caught:
        parse_description(encode(document))
    assert caught.value.where == where


@pytest.mark.parametrize(
    "path",
    [
        "", "/etc/passwd", "../up", "a/../b", "a//b", "a/", ".hidden", "a/.hidden", "a\\b", "C:x", "a b", "a\n",
        "dot.", "é", "a\0b", "n" * 201, "CON", "nul.json", "aux", "a/prn", "Com1.tar.gz", "lpt9/a",
    ],
)  # fmt: skip
def test_paths_that_leave_or_confuse_are_refused(path):
    document = make_document()
    document["files"][path] = document["files"]["tokenizer.json"]
    with pytest.raises(CorruptArtifact, match="not allowed"):
        parse_description(encode(document))


@pytest.mark.parametrize("name", ["con", "Nul", "aux.v2", "COM7"])
def test_names_of_devices_are_no_names(name):
    for path in (("name",), (*VARIANT, "name")):
        document = make_document()
        change(document, path, name)
        with pytest.raises(CorruptArtifact, match="not allowed"):
            parse_description(encode(document))


@pytest.mark.parametrize("path", ["console", "com", "com10", "nuls/auxiliary.json", "a.con", "lpt"])
def test_names_that_are_like_devices_pass(path):
    document = make_document()
    document["files"][path] = document["files"]["tokenizer.json"]
    assert path in parse_description(encode(document)).files


@pytest.mark.parametrize(
    ("other", "message"),
    [("Tokenizer.JSON", "differ in case"), ("tokenizer.json/inner", "is a file itself")],
)
def test_paths_that_collide_are_refused(other, message):
    document = make_document()
    document["files"][other] = document["files"]["tokenizer.json"]
    with pytest.raises(CorruptArtifact, match=message):
        parse_description(encode(document))


def test_variants_that_collide_are_refused():
    description = make_description(variants=(make_variant("one"), make_variant("ONE")))
    with pytest.raises(CorruptArtifact, match="differ in case"):
        parse_description(description.to_bytes())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[]", "object is needed"),
        (b'{"schema": 1, "schema": 1}', "there twice"),
        (b'{"schema": NaN}', "no JSON"),
        (b'{"schema": 1e999}', "too large"),
        (b'{"schema": "\\ud800"}', "surrogates"),
        (b'{"\\ud800": 1}', "surrogates"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[" * 40 + b"]" * 40, "deeper"),
    ],
)
def test_what_json_should_not_hold_is_refused(data, message):
    with pytest.raises(CorruptArtifact, match=message):
        parse_description(data)


@pytest.mark.parametrize("data", [b"[" + b"[]," * 2_000_000 + b"[]]", b"{" * 4_000_001])
def test_values_without_end_are_refused_before_they_are_made(data, monkeypatch):
    monkeypatch.setattr("json.loads", lambda *_, **__: pytest.fail("it was parsed"))
    with pytest.raises(CorruptArtifact, match="more than 4,000,000 values"):
        parse_description(data)
