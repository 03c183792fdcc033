"""A language model through the command line: a GGUF file in, a directory out that continues texts as PyTorch does."""

import json

import pytest
import torch

from exporter.judging.perplexity import PERPLEXITY
from exporter.judging.token_judge import CACHED
from stepdown import GenerationOptions, load_for_transformers, open_generator
from tests.unit.exporter.tracing.made_gguf import make_llama, write_llama

PROMPT = "the hen sat on 2024 eggs"
TEXTS = [f"the {animal} {verb} {place}\n" for animal in ("hen", "fox", "cow") for verb in ("sat", "ran", "ate")
         for place in ("here", "there in the barn", "near the old red house")]  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return make_llama()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model)


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(TEXTS))
    return path


def continue_in_pytorch(model, ids, count):
    with torch.no_grad():
        found = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False, eos_token_id=None)
    return found[0, len(ids) :].tolist()


def test_float_continues_a_text_as_pytorch_does(stepdown, model, checkpoint, tmp_path):
    out = tmp_path / "out"
    # Untimed, which is quicker.
    exported = stepdown("export", checkpoint, "--precision", "fp32", "--for-isa", "avx2", "-o", out, "--json")
    assert exported.code == 0, exported.err
    words = ("--plain", "--max-new-tokens", 24, "--temperature", 0, "--json")
    (answer,) = stepdown("run", out, "--prompt", PROMPT, *words).json()["answers"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["source"]["task"] == "text-generation"
    assert {"onnxruntime/genai_config.json", "onnxruntime/tokenizer.json"} <= {one["path"] for one in manifest["files"]}
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(out / "tokenizer.json")).encode(PROMPT, add_special_tokens=False).ids
    wanted = continue_in_pytorch(model, ids, 24)
    assert answer["ids"] == wanted[: len(answer["ids"])]
    assert len(answer["ids"]) == 24 or answer["finish"] == "stop"
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text('{"text": "the hen", "label": 1}\n{"text": "the fox", "label": 0}\n')
    # What is asked of encoders, each with what to do in its place.
    for words, code, cure in (
        (("eval", out, "--data", labelled, "--metric", "accuracy"), 4, "perplexity"),
        (("run", out, "--text", PROMPT), 2, "give --prompt"),
        (("plan", out / "onnxruntime" / "model.onnx", "--data", labelled), 4, "give the Hugging Face directory"),
    ):
        refused = stepdown(*words)
        assert refused.code == code
        assert cure in refused.err


def test_weights_in_blocks_are_judged_by_perplexity_and_with_a_cache(stepdown, checkpoint, texts, tmp_path):
    out = tmp_path / "out"
    words = (
        "--calibration-data",
        texts,
        "--eval-data",
        texts,
        "--precision",
        "weights-4",
        "--max-drop",
        "90%",
        "--shape",
        "1x8",
        "--json",
    )
    found = stepdown("export", checkpoint, "-o", out, *words)
    assert found.code == 0, found.err
    (report,) = found.json()["reports"]
    assert (report["metric"], report["judged_on"]) == (PERPLEXITY, str(texts))
    rows = {row["name"]: row for row in report["rows"]}
    roundings = {"weights-4", "weights-4, gptq", "weights-4, awq"}
    (smaller,) = set(rows) - roundings - {"float (as traced)"}
    assert smaller.removesuffix(", 4-bit tables") in roundings
    assert all(set(row["accuracy"]) >= {PERPLEXITY, CACHED} for row in rows.values())
    # Of roundings that are stored alike the most accurate is timed, and tried with smaller tables.
    timed = {name for name, row in rows.items() if row["speed"]}
    assert timed == {"float (as traced)", smaller.removesuffix(", 4-bit tables"), smaller}
    assert {"1x1+127"} <= set(rows[smaller]["speed"])
    assert rows[smaller]["size_bytes"] < rows["weights-4"]["size_bytes"]
    assert rows["weights-4"]["size_bytes"] < rows["float (as traced)"]["size_bytes"] / 2
    answers = stepdown("run", out, "--prompt", PROMPT, "--plain", "--max-new-tokens", 4, "--json").json()["answers"]
    assert 0 < len(answers[0]["ids"]) <= 4


def test_a_cache_of_int8_runs_wherever_the_model_does(stepdown, checkpoint, texts, tmp_path):
    out = tmp_path / "out"
    words = ("--calibration-data", texts, "--eval-data", texts, "--precision", "fp32", "--max-drop", "5%", "--json")
    found = stepdown("export", checkpoint, "-o", out, *words, "--cache-precision", "int8", "--for-isa", "avx2")
    assert found.code == 0, found.err
    rows = {row["name"]: row for row in found.json()["reports"][0]["rows"]}
    assert set(rows) == {"float (as traced)", "float, int8 cache"}
    # Every token attends to the rounded keys, whether they come with it or lie in the cache.
    assert all(row["accuracy"][CACHED] == 1 for row in rows.values())
    assert rows["float, int8 cache"]["chosen"]
    artifact = json.loads((out / "manifest.json").read_text())["artifacts"]["onnxruntime"]
    assert artifact["cache"] == {"layers": 2, "kv_heads": 2, "head_dim": 16, "dtype": "int8"}
    assert {one["dtype"] for one in artifact["inputs"] if one["name"].startswith("past")} == {"int8"}
    words = ("--plain", "--max-new-tokens", 16, "--json")
    (answer,) = stepdown("run", out, "--prompt", PROMPT, *words).json()["answers"]
    continued = load_for_transformers(out, threads=1)
    with open_generator(out, threads=1) as generator:
        ids = generator.encode(PROMPT)
        (beams,) = generator.complete([PROMPT], GenerationOptions(max_new_tokens=4, beams=2))
    assert continue_in_pytorch(continued, ids, len(answer["ids"])) == answer["ids"]
    assert beams.ids


def test_a_cache_of_int8_is_refused_where_there_is_none(stepdown, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("one\ntwo\nthree\n")
    (tmp_path / "model.py").write_text(
        "import torch\n\ndef make():\n    return torch.nn.Linear(4, 2), (torch.zeros(2, 4),)\n"
    )
    words = ("--calibration-data", texts, "--cache-precision", "int8", "-o", tmp_path / "out")
    found = stepdown("export", f"{tmp_path / 'model.py'}:make", *words)
    assert found.code == 2
    assert "keeps no cache" in found.err


def test_no_other_metric_judges_a_language_model(stepdown, checkpoint, texts, tmp_path):
    words = ("--precision", "fp32", "--eval-data", texts, "--metric", "accuracy")
    wrong = stepdown("export", checkpoint, "-o", tmp_path / "out", *words)
    assert wrong.code == 2
    assert "not judged by accuracy" in wrong.err


def test_a_damaged_file_is_refused_and_leaves_nothing(stepdown, checkpoint, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(checkpoint.read_bytes()[:2000])
    found = stepdown("export", cut, "-o", tmp_path / "out")
    assert found.code == 4
    assert "cut.gguf" in found.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.gguf"]
