"""A decoder through the command line: packed, verified, installed, gone back from, and writing; and every refusal."""

import json
import platform

import pytest

from runtimes.isa import normalise_arch
from tests.unit.runtimes.bundle.decoder_bundle import change, edit_config, read_archive
from tests.unit.runtimes.generation.tiny_decoder import seal, write_artifact, write_tokenizer

CAMERA = 'summary = "a camera"\narch = "x86_64"\nruntimes = ["onnxruntime"]\nonnxruntime = ">=1.24"\n'
SHORT = ("--max-new-tokens", 8)

pytestmark = pytest.mark.skipif(normalise_arch(platform.machine()) != "x86_64", reason="the export is of an x86-64 CPU")


@pytest.fixture
def decoder(tmp_path):
    return write_artifact(tmp_path / "words")


@pytest.fixture
def bundle(tmp_path):
    return tmp_path / "words.stepdown.tar.gz"


@pytest.fixture
def packed(stepdown, decoder, bundle):
    result = stepdown("pack", decoder, "-o", bundle, "--name", "words", "--version", 1, "--licence", "MIT")
    assert result.code == 0, result.err
    return bundle


def test_it_writes_from_its_bundle_as_from_its_directory(stepdown, decoder, packed, tmp_path):
    verified = stepdown("verify", packed)
    assert verified.code == 0, verified.err
    assert "48 of 48 tokens as stored" in verified.out
    root = tmp_path / "models"
    assert stepdown("install", packed, "--root", root).code == 0
    for words in (("--json",), ("--stream",), ("--plain", "--json"), ("--temperature", 1, "--seed", 3, "--json")):
        answers = [
            stepdown("run", place, "--prompt", "Hello", *SHORT, *words) for place in (decoder, packed, root / "words")
        ]
        assert [answer.code for answer in answers] == [0, 0, 0]
        told = [answer.json()["answers"] if "--json" in words else answer.out for answer in answers]
        assert told[0] == told[1] == told[2]


def test_the_same_directory_gives_the_same_bytes(stepdown, packed, decoder, tmp_path):
    again = tmp_path / "again" / "b.stepdown.tar.gz"
    again.parent.mkdir()
    moved = decoder.rename(tmp_path / "again" / "elsewhere")
    words = ("--name", "words", "--version", 1, "--licence", "MIT")
    assert stepdown("pack", moved, "-o", again, *words).code == 0
    assert again.read_bytes() == packed.read_bytes()


def test_versions_are_switched(stepdown, packed, decoder, bundle, tmp_path):
    root = tmp_path / "models"
    assert stepdown("install", packed, "--root", root).code == 0
    assert stepdown("pack", decoder, "-o", bundle, "--name", "words", "--version", 2, "--force").code == 0
    assert stepdown("install", bundle, "--root", root, "--json").json()["version"] == 2
    assert stepdown("rollback", "words", "--root", root, "--json").json()["version"] == 1
    assert stepdown("run", root / "words", "--prompt", "Hello", *SHORT).code == 0


def test_a_text_is_no_prompt(stepdown, packed):
    result = stepdown("run", packed, "--text", "Hello")
    assert result.code == 2
    assert "give --prompt" in result.err


def test_a_prompt_goes_with_what_bundles_are_trusted_by(stepdown, packed, decoder):
    assert stepdown("run", packed, "--prompt", "a", "--require-signature").code == 2
    result = stepdown("run", decoder, "--prompt", "a", "--require-signature")
    assert result.code == 2
    assert "only bundles are signed" in result.err


def test_what_does_not_answer_as_it_did_exits_with_8(stepdown, packed, tmp_path):
    write_tokenizer(tmp_path)
    told = json.loads((tmp_path / "tokenizer.json").read_text())
    words = told["model"]["vocab"]
    words["l"], words["o"] = words["o"], words["l"]
    other = change(packed, tmp_path / "b.stepdown.tar.gz", shared={"tokenizer.json": json.dumps(told).encode()})
    result = stepdown("verify", other, "--json")
    assert result.code == 8
    (failure,) = result.json()["failures"]
    assert failure["stage"] == "probe"
    assert {key for key in ("what", "expected", "found", "cure") if failure[key]} == {
        "what",
        "expected",
        "found",
        "cure",
    }


def test_a_configuration_that_names_a_library_exits_with_8_and_runs_nothing(stepdown, packed, tmp_path):
    def name_a_library(told):
        told["model"]["decoder"]["session_options"]["custom_ops_library"] = "/tmp/evil.so"

    config = {"genai_config.json": edit_config(packed, name_a_library)}
    other = change(packed, tmp_path / "b.stepdown.tar.gz", own=config)
    for words in (("verify", other), ("install", other, "--root", tmp_path / "r"), ("run", other, "--prompt", "a")):
        result = stepdown(*words)
        assert result.code == 8
        assert "a configuration in a bundle says this, and nothing else" in result.err


def test_a_template_that_no_device_would_run_is_not_packed(stepdown, decoder, bundle):
    (decoder / "onnxruntime" / "chat_template.jinja").write_text("{% include '/etc/passwd' %}")
    seal(decoder)
    result = stepdown("pack", decoder, "-o", bundle)
    assert result.code == 8
    assert "'Include' is nothing that chat templates need" in result.err
    assert not bundle.exists()


def test_the_tokenizer_beside_the_graph_is_what_goes_in(stepdown, decoder, bundle):
    (decoder / "tokenizer.json").write_text("{}")
    (decoder / "chat_template.jinja").write_text("another")
    seal(decoder)
    assert stepdown("pack", decoder, "-o", bundle).code == 0
    description, blobs = read_archive(bundle)
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert blobs[description.files[name]] == (decoder / "onnxruntime" / name).read_bytes()


def test_forms_of_one_model_have_one_template(stepdown, decoder, bundle, tmp_path):
    other = write_artifact(tmp_path / "other")
    (other / "onnxruntime" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    seal(other)
    result = stepdown("pack", decoder, other, "-o", bundle, "--device", "x86-64", "--device", "x86-64-vnni")
    assert result.code == 2
    assert "another chat_template.jinja" in result.err


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("", "the profile has none"),
        ('onnxruntime_genai = ">=0.10"', "the profile has >=0.10"),
        ('onnxruntime_genai = ">=0.18"\nmemory_bytes = 1_000_000', "bytes of memory"),
    ],
)
def test_a_device_that_it_is_not_for_is_refused(stepdown, decoder, bundle, tmp_path, limits, said):
    (tmp_path / "camera.toml").write_text(CAMERA + limits, encoding="utf-8")
    result = stepdown("pack", decoder, "-o", bundle, "--device", tmp_path / "camera.toml")
    assert result.code == 8
    assert said in result.err
    assert not bundle.exists()


def test_a_plan_alone_does_not_generate(stepdown, decoder, bundle):
    manifest = json.loads((decoder / "manifest.json").read_text())
    manifest["artifacts"] = {"tensorrt": manifest["artifacts"]["onnxruntime"]}
    (decoder / "manifest.json").write_text(json.dumps(manifest))
    result = stepdown("pack", decoder, "-o", bundle, "--device", "rtx-40")
    assert result.code == 2
    assert "export it with --target onnxruntime" in result.err


def test_an_export_that_cannot_generate_is_refused(stepdown, decoder, bundle):
    (decoder / "onnxruntime" / "genai_config.json").unlink()
    seal(decoder)
    result = stepdown("pack", decoder, "-o", bundle)
    assert result.code == 8
    assert "no genai_config.json beside the graph" in result.err


def test_a_device_is_judged_by_its_profile(stepdown, packed, tmp_path):
    (tmp_path / "camera.toml").write_text(CAMERA, encoding="utf-8")
    assert stepdown("verify", packed, "--device", "x86-64").code == 0
    result = stepdown("verify", packed, "--device", tmp_path / "camera.toml")
    assert result.code == 8
    assert "onnxruntime-genai is not there" in result.out + result.err


@pytest.mark.parametrize(
    ("told", "words", "licence", "said"),
    [
        ("apache-2.0", (), "Apache-2.0", "what the source says: apache-2.0"),
        ("llama3.2", (), "unknown", "is llama3.2, which is no one SPDX name"),
        (None, (), "unknown", "the licence of the model is unknown"),
        ("apache-2.0", ("--licence", "MIT"), "MIT", "unsigned"),
    ],
)
def test_the_licence_of_a_gguf_file_goes_along(stepdown, decoder, bundle, told, words, licence, said):
    origin = {"sha256": "0" * 64, "general": {"name": "words", **({"license": told} if told else {})}}
    (decoder / "gguf.json").write_text(json.dumps(origin))
    seal(decoder)
    result = stepdown("pack", decoder, "-o", bundle, *words)
    assert result.code == 0, result.err
    assert said in result.err
    description, blobs = read_archive(bundle)
    assert description.licence == licence
    assert json.loads(blobs[description.files["gguf.json"]]) == origin
