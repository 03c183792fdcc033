"""A bundle that generates: what it may say to onnxruntime-genai, and what a template of it may be made of."""

import json
from dataclasses import replace

import numpy as np
import pytest

from runtimes.bundle.description import parse_description
from runtimes.bundle.verify import VerifyOptions, verify_bundle
from runtimes.errors import CorruptArtifact
from tests.unit.runtimes.bundle.decoder_bundle import change, edit_config, edit_probe, pack_decoder, read_archive
from tests.unit.runtimes.generation.tiny_decoder import CONTEXT, VOCABULARY

CONFIG, INPUTS, OUTPUTS = "genai_config.json", "probe/inputs.safetensors", "probe/outputs.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return pack_decoder(tmp_path_factory.mktemp("decoder"))[0]


def find_failure(archive):
    """The one failure; nothing of the bundle may have run by then."""
    (failure,) = verify_bundle(archive, VerifyOptions(probe=False)).failures
    return failure


def test_what_is_packed_is_taken(whole):
    assert verify_bundle(whole, VerifyOptions(probe=False)).verdict == "pass"
    description, _ = read_archive(whole)
    (variant,) = description.variants
    assert set(variant.files) == {"model.onnx", CONFIG, INPUTS, OUTPUTS}
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= set(description.files)
    assert (variant.generates, variant.oldest_genai) == (True, ">=0.18")


def put(*place, value):
    def edit(told):
        for key in place[:-1]:
            told = told.setdefault(key, {})
        told[place[-1]] = value

    return edit


DECODER, SESSION = ("model", "decoder"), ("model", "decoder", "session_options")


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        # Files elsewhere, and other models.
        (put(*DECODER, "filename", value="../../../etc/model.onnx"), "filename"),
        (put(*DECODER, "filename", value="/etc/model.onnx"), "filename"),
        (put(*DECODER, "filename", value="other.onnx"), "filename"),
        (put("model", "vision", value={"filename": "x.onnx"}), "model"),
        (put("model", "speech", "config_filename", value="/etc/passwd"), "model"),
        (put("model", "draft", "filename", value="x.onnx"), "model"),
        (put(*DECODER, "pipeline", value=[{"a": {"filename": "x.onnx"}}]), "decoder"),
        (put("model", "type", value="whisper"), "type"),
        # Libraries.
        (put(*SESSION, "custom_ops_library", value="kernels/evil.so"), "session_options"),
        (put(*SESSION, "custom_ops_library", value="/tmp/evil.so"), "session_options"),
        (put(*SESSION, "provider_options", value=[{"QNN": {"backend_path": "/tmp/evil.so"}}]), "session_options"),
        (put(*SESSION, "provider_options", value=[{"cuda": {}}]), "session_options"),
        (put("engine", value={"dynamic_batching": {}}), CONFIG),
        # Settings of ONNX Runtime that write or read files.
        (put(*SESSION, "enable_profiling", value="/tmp/profile"), "session_options"),
        (put(*SESSION, "ep.context_file_path", value="/tmp/written"), "session_options"),
        (put(*SESSION, "config_entries", value={"session.load_model_format": "ORT"}), "session_options"),
        (put(*DECODER, "run_options", value={}), "decoder"),
        # Sizes that become allocations, and names that are others.
        (put("model", "context_length", value=1 << 40), "context_length"),
        (put("model", "vocab_size", value=1 << 40), "vocab_size"),
        (put("model", "eos_token_id", value=[-1]), "eos_token_id"),
        (put("model", "eos_token_id", value="1"), "eos_token_id"),
        (put(*DECODER, "num_hidden_layers", value=1 << 20), "num_hidden_layers"),
        (put(*DECODER, "inputs", "input_ids", value="%n%s"), "inputs"),
        (put(*DECODER, "outputs", "present_key_names", value="present.%s"), "outputs"),
        (put("search", "max_length", value=0), "max_length"),
        (put("search", "do_sample", value="yes"), "do_sample"),
        (put("search", "temperature", value="hot"), "temperature"),
        (put("search", "chunk_size", value=4), "search"),
    ],
)
def test_a_configuration_that_says_more_than_an_export_writes_is_refused(whole, tmp_path, edit, place):
    failure = find_failure(change(whole, tmp_path / "b", own={CONFIG: edit_config(whole, edit)}))
    assert failure.stage == "contents"
    assert CONFIG in failure.where
    assert place in failure.where.rpartition(CONFIG)[2] or place == CONFIG


@pytest.mark.parametrize("data", [b"{}", b"[]", b"{", b'{"model": {}, "model": {}}', b" " * 70_000])
def test_a_configuration_that_is_none_is_refused(whole, tmp_path, data):
    assert CONFIG in find_failure(change(whole, tmp_path / "b", own={CONFIG: data})).where


def test_parts_that_do_not_fit_each_other_are_refused(whole, tmp_path):
    other = edit_config(whole, put(*DECODER, "head_size", value=16))
    assert "the cache does not fit" in find_failure(change(whole, tmp_path / "b", own={CONFIG: other})).what


@pytest.mark.parametrize(
    "template",
    [
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{% block a %}{% endblock %}",
        "{{ ''.__class__ }}",
        "{{ messages | map(attribute='__class__') | list }}",
        "{{ messages['__init__'] }}",
        "{{ messages | attr('append') }}",
        "{{ '%s' | format(1) }}",
        "{{ '{0.x}'.format(messages) }}",
        "{{ 'x' | center(1000000000) }}",
        "{% for %}",
        "{{ messages",
        "{{ 1 }}" + " " * (300 << 10),
    ],
)
@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_template_made_of_more_than_templates_need_is_refused(whole, tmp_path, template, where):
    settings = json.dumps({"chat_template": template}).encode()
    files = {"chat_template.jinja": template.encode() if where.endswith("jinja") else None}
    failure = find_failure(change(whole, tmp_path / "b", shared={**files, "tokenizer_config.json": settings}))
    assert failure.stage == "contents"
    assert "the chat template" in failure.what
    assert where in failure.where


def test_a_model_without_a_template_is_taken(whole, tmp_path):
    gone = {"chat_template.jinja": None, "tokenizer_config.json": None}
    assert verify_bundle(change(whole, tmp_path / "b", shared=gone)).verdict == "pass"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task": "text-classification"}, "with every variant, or with none"),
        ({"task": None}, "with every variant, or with none"),
        ({"shared": {"tokenizer.json": None}}, "has a tokenizer"),
        ({"own": {CONFIG: None}}, "with every variant, or with none"),
    ],
)
def test_what_the_description_says_of_generating_must_be_true(whole, tmp_path, changes, problem):
    assert problem in find_failure(change(whole, tmp_path / "b", **changes)).what


@pytest.mark.parametrize("requires", [None, {}, {"onnxruntime-genai": "0.18"}, {"onnxruntime-genai": 1}])
def test_a_requirement_that_is_none_is_refused(whole, requires):
    description, _ = read_archive(whole)
    (variant,) = description.variants
    wrong = replace(variant, artifact={**variant.artifact, "requires": requires})
    with pytest.raises(CorruptArtifact) as refused:
        parse_description(replace(description, variants=(wrong,)).to_bytes())
    assert "artifact.requires" in refused.value.where


@pytest.mark.parametrize(
    ("path", "arrays", "problem"),
    [
        (INPUTS, {"ids_0": np.array([VOCABULARY])}, "does not have"),
        (INPUTS, {"ids_0": np.array([-1])}, "does not have"),
        (INPUTS, {"ids_0": np.zeros(0, np.int64)}, "the shape"),
        (INPUTS, {"ids_0": np.zeros((1, 4), np.int64)}, "the shape"),
        (INPUTS, {"ids_0": np.zeros(CONTEXT + 1, np.int64)}, "the shape"),
        (INPUTS, {"ids_0": np.array([1.0])}, "not one of a model that generates"),
        (INPUTS, {"text_0": np.array([255], np.uint8)}, "no text"),
        (INPUTS, {"more_0": np.array([1])}, "not one of a model that generates"),
        (OUTPUTS, {"tokens_0": np.array([VOCABULARY])}, "does not fit itself"),
        (OUTPUTS, {"tokens_0": np.zeros(65, np.int64)}, "the shape"),
        (OUTPUTS, {"logits_0": np.zeros(3, np.float32)}, "does not fit itself"),
        (OUTPUTS, {"logits_0": np.full(VOCABULARY, np.nan, np.float32)}, "no numbers"),
    ],
)
def test_a_probe_of_another_kind_is_refused(whole, tmp_path, path, arrays, problem):
    failure = find_failure(change(whole, tmp_path / "b", own={path: edit_probe(whole, path, **arrays)}))
    assert failure.stage == "contents"
    assert problem in failure.what + str(failure.expected)
