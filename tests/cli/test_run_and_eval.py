"""``run``, ``eval`` and ``inspect`` on a small exported directory, and the checks before it is run."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from runtimes.sparse.library import KernelBuild
from tests.cli.tiny_artifact import WORDS, seal, write_texts, write_tokenizer

REVIEWS = [
    {"text": "a good film", "label": "positive", "stars": 1},
    {"text": "a very bad film", "label": "negative", "stars": 0},
    {"text": "the film", "label": "positive", "stars": 1},
    {"text": "bad bad good", "label": "negative", "stars": 0},
]


def test_run_names_the_class(stepdown, artifact):
    result = stepdown("run", artifact, "--text", "a good film", "--text", "bad")
    assert result.code == 0, result.err
    assert result.out.splitlines() == ["'a good film': positive (98.2%)", "'bad': negative (98.2%)"]


def test_run_as_json_has_the_logits(stepdown, artifact):
    (answer,) = stepdown("run", artifact, "--text", "good good", "--json").json()["answers"]
    assert (answer["kind"], answer["value"]["label"], answer["value"]["logits"]) == ("label", "positive", [0.0, 8.0])


def test_run_on_tensors_gives_every_output(stepdown, artifact, tmp_path):
    np.savez(tmp_path / "in.npz", input_ids=np.array([[2, 2, 3]]))
    result = stepdown("run", artifact, "--inputs", tmp_path / "in.npz", "--json")
    assert result.json()["answers"][0]["value"] == {"logits": [[4.0, 8.0]]}
    assert "1x2 numbers, [4, 8]" in stepdown("run", artifact, "--inputs", tmp_path / "in.npz").out


@pytest.mark.parametrize("version", ["0.1.0", "9.0.0"])
def test_other_sparse_kernels_than_the_manifest_names_are_said_or_refused(
    stepdown, artifact, tmp_path, monkeypatch, version
):
    here = KernelBuild(version="0.1.0", sha256="a" * 64)
    monkeypatch.setattr("runtimes.kernel_check.describe_build", lambda: here)
    manifest = json.loads((artifact / "manifest.json").read_text())
    entry = manifest["artifacts"]["onnxruntime"]
    entry["requires"]["stepdown"] = f">={version}"
    entry["sparse_kernels"] = {"version": version, "sha256": "b" * 64}
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    data = write_texts(tmp_path / "reviews.jsonl", REVIEWS)
    code, said = (0, "note: timed with another build") if version == here.version else (8, "and these are of 0.1.0")
    for words in (("run", artifact, "--text", "good"), ("eval", artifact, "--data", data), ("inspect", artifact)):
        result = stepdown(*words)
        assert (result.code, result.err.count(said)) == (code, 1), result.err
        assert "note:" not in result.out


def test_run_as_embedding(stepdown, artifact):
    result = stepdown("run", artifact, "--text", "good", "--task", "feature-extraction")
    assert result.out.strip() == "'good': 2 numbers, [0, 4]"


def test_run_an_onnx_file_without_its_tokenizer(stepdown, artifact):
    result = stepdown("run", artifact / "onnxruntime" / "model.onnx", "--text", "good")
    assert result.code == 2
    assert "--inputs" in result.err


def test_run_with_a_wrong_array(stepdown, artifact, tmp_path):
    np.savez(tmp_path / "in.npz", ids=np.array([[2]]))
    result = stepdown("run", artifact, "--inputs", tmp_path / "in.npz")
    assert result.code == 2
    assert "input_ids" in result.err


@pytest.mark.parametrize(("metric", "value"), [("accuracy", 0.75), ("macro-f1", 0.7333)])
def test_eval_by_name_and_by_index(stepdown, artifact, tmp_path, metric, value):
    data = write_texts(tmp_path / "reviews.jsonl", REVIEWS)
    by_name = stepdown("eval", artifact, "--data", data, "--metric", metric, "--json")
    by_index = stepdown("eval", artifact, "--data", data, "--metric", metric, "--label-column", "stars", "--json")
    assert by_name.code == 0, by_name.err
    assert by_name.json() == by_index.json()
    assert by_name.json() == {"metric": metric, "value": pytest.approx(value, abs=1e-4), "samples": 4}


def test_the_metric_follows_from_the_task(stepdown, artifact, tmp_path):
    data = write_texts(tmp_path / "reviews.jsonl", REVIEWS)
    assert stepdown("eval", artifact, "--data", data).out == "accuracy 0.7500 over 4 samples\n"


def test_eval_spearman_of_pairs(stepdown, artifact, tmp_path):
    rows = [
        {"text_a": "good", "text_b": "good", "score": 9},
        {"text_a": "good bad", "text_b": "good", "score": 5.5},
        {"text_a": "bad", "text_b": "good", "score": 1},
    ]
    data = write_texts(tmp_path / "pairs.jsonl", rows)
    result = stepdown("eval", artifact, "--data", data, "--metric", "spearman", "--json")
    assert result.json()["value"] == pytest.approx(1.0)


def test_eval_cosine_to_a_reference(stepdown, artifact, tmp_path):
    data = write_texts(tmp_path / "reviews.jsonl", REVIEWS[:2])
    result = stepdown("eval", artifact, "--data", data, "--metric", "cosine", "--reference", artifact, "--json")
    assert result.json() == {"metric": "cosine", "value": pytest.approx(1.0), "samples": 2}


def write_tagger(path, *, width):
    """Write a model with a vector of ``width`` logits a token, or, with no width, one number a token."""
    shape = f"batch, sequence, {width}" if width else "batch, sequence"
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 18]>
        tagger (int64[batch, sequence] input_ids) => (float[{shape}] logits) {{
            logits = Gather <axis = 0> (table, input_ids)
        }}"""
    )
    table = np.random.default_rng(0).normal(size=(len(WORDS), width) if width else len(WORDS)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("task", "width"), [("token-classification", 3), ("fill-mask", len(WORDS)), ("question-answering", 0)]
)
def test_cosine_serves_any_task(stepdown, tmp_path, task, width):
    """Texts of many lengths, in several batches."""
    write_tokenizer(tmp_path)
    model = write_tagger(tmp_path / "model.onnx", width=width)
    data = write_texts(tmp_path / "texts.jsonl", [{"text": "good " * (n % 7 + 1) + f"film {n}"} for n in range(20)])
    words = ["eval", model, "--task", task, "--data", data, "--metric", "cosine", "--reference", model, "--json"]
    result = stepdown(*words)
    assert result.code == 0, result.err
    assert result.json() == {"metric": "cosine", "value": pytest.approx(1.0), "samples": 20}
    assert stepdown("eval", model, "--task", task, "--data", data).code == 2


def test_spearman_of_one_number_a_token_is_refused(stepdown, tmp_path):
    write_tokenizer(tmp_path)
    model = write_tagger(tmp_path / "model.onnx", width=0)
    rows = [{"text_a": "good", "text_b": "good film", "score": 1}, {"text_a": "bad", "text_b": "bad", "score": 2}]
    data = write_texts(tmp_path / "pairs.jsonl", rows)
    result = stepdown("eval", model, "--data", data, "--metric", "spearman")
    assert result.code == 4
    assert "one number a token" in result.err


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (None, [], "no such data file"),
        ([], [], "no text"),
        (REVIEWS, ["--column", "review"], "no column 'review'"),
        (REVIEWS, ["--label-column", "rating"], "no column 'rating'"),
        ([{"text": "good", "label": "great"}], [], "no class 'great'"),
        (REVIEWS, ["--metric", "spearman", "--column", "text"], "name two columns"),
    ],
)
def test_eval_on_data_that_cannot_be_used(stepdown, artifact, tmp_path, rows, options, message):
    data = tmp_path / "reviews.jsonl"
    if rows is not None:
        write_texts(data, rows)
    result = stepdown("eval", artifact, "--data", data, *options)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_inspect_an_exported_directory(stepdown, artifact):
    result = stepdown("inspect", artifact, "--json")
    document = result.json()
    assert (document["kind"], document["ops"]["MatMul"]) == ("artifact", 1)
    assert "MatMul" in stepdown("inspect", artifact).out


def damage(artifact):
    model = artifact / "onnxruntime" / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)


def lose(artifact):
    (artifact / "tokenizer.json").unlink()


def escape(artifact):
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["files"][0]["path"] = "../outside"
    (artifact / "manifest.json").write_text(json.dumps(manifest))


def truncate(artifact):
    (artifact / "manifest.json").write_text("{")


def age(artifact):
    manifest = json.loads((artifact / "manifest.json").read_text())
    (artifact / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))


def forget(artifact):
    manifest = json.loads((artifact / "manifest.json").read_text())
    (artifact / "manifest.json").write_text(json.dumps({**manifest, "artifacts": {}}))


def test_a_directory_for_a_newer_runtime_says_which(stepdown, artifact):
    seal(artifact, oldest="99.0")
    result = stepdown("run", artifact, "--text", "good")
    assert (result.code, result.out) == (3, "")
    assert "needs ONNX Runtime 99.0 or later" in result.err
    assert "pip install 'onnxruntime>=99.0'" in result.err


def blur(artifact):
    """Say in words what must be true or false."""
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["artifacts"]["onnxruntime"]["exact_on_any_cpu"] = "no"
    (artifact / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damage, "not the one that was exported"),
        (lose, "is missing"),
        (escape, "outside its directory"),
        (truncate, "cannot be read"),
        (age, "schema 99"),
        (forget, "describes no ONNX Runtime model"),
        (blur, "exact_on_any_cpu is 'no'"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "eval"])
def test_a_harmed_directory_is_not_run(stepdown, artifact, tmp_path, harm, message, verb):
    harm(artifact)
    data = write_texts(tmp_path / "reviews.jsonl", REVIEWS)
    options = ["--text", "good"] if verb == "run" else ["--data", data]
    result = stepdown(verb, artifact, *options)
    assert (result.code, result.out) == (8, "")
    assert message in result.err
    assert "to fix:" in result.err


def test_a_file_for_cpus_that_do_not_saturate_is_refused_where_they_do(stepdown, artifact):
    from runtimes.isa import detect, saturates_u8s8

    seal(artifact, isa="vnni")
    result = stepdown("run", artifact, "--text", "good")
    assert result.code == (8 if saturates_u8s8(detect()) else 0)


def test_not_a_model(stepdown, tmp_path):
    (tmp_path / "m.onnx").write_text("hello")
    assert stepdown("run", tmp_path / "m.onnx", "--text", "a").code == 8
    assert stepdown("inspect", tmp_path / "absent").code == 4


def test_a_device_needs_no_more_than_its_extra(artifact, tmp_path):
    data = write_texts(tmp_path / "reviews.jsonl", REVIEWS)
    absent = ("torch", "transformers", "optimum", "onnx", "onnx_ir", "onnxscript", "safetensors", "rich", "psutil")
    for words in (["run", str(artifact), "--text", "good"], ["eval", str(artifact), "--data", str(data)], ["doctor"]):
        code = (
            f"import sys\nfor name in {absent!r}: sys.modules[name] = None\n"
            f"from exporter.cli.main import main\nsys.exit(main({words!r}))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
