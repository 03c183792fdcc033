"""A GGUF file wherever a verb takes a model: it works, or the refusal says what to do."""

import json
from pathlib import Path

import pytest

from runtimes.artifact import hash_file
from tests.unit.exporter.tracing.made_gguf import make_llama, write_llama

TEXTS = "".join(f"the {animal} sat {place} on {number} eggs\n" for animal in ("hen", "fox", "cow")
                for place in ("here", "in the barn") for number in range(8))  # fmt: skip
PRUNE = """
name = "prune"
max_length = 32
[[steps]]
do = "prune"
method = "magnitude"
sparsity = 0.5
"""
LEARN = """
name = "learn"
max_length = 32
[[steps]]
do = "distil"
[steps.train]
epochs = 1
batch_size = 16
learning_rate = 1e-3
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("gguf") / "tiny.gguf", make_llama(num_hidden_layers=1))


@pytest.fixture
def words(checkpoint, tmp_path):
    """What stands for a name in braces on a command line."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS.splitlines())
    files = {"texts.txt": TEXTS, "lines.jsonl": lines, "prune.toml": PRUNE, "learn.toml": LEARN}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return {"gguf": checkpoint, "out": tmp_path / "out", **{Path(name).stem: tmp_path / name for name in files}}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("export {gguf} --precision fp32 --for-isa avx2 --threads 1 -o {out}", marks=pytest.mark.slow),
        pytest.param("calibrate {gguf} --calibration-data {texts} --samples 4 -o {out}", marks=pytest.mark.slow),
        pytest.param("eval {gguf} --measure size", marks=pytest.mark.slow),
        "eval {gguf} --data {lines} --max-length 16 --samples 4",
        "compress {gguf} --recipe {prune} --threads 1 -o {out}",
        "compress {gguf} --recipe {learn} --data {texts} --teacher {gguf} --threads 1 -o {out}",
    ],
)
def test_it_is_taken(stepdown, words, line):
    found = stepdown(*line.format(**words).split())
    assert found.code == 0, found.err
    # What it was unpacked into is gone.
    assert not list(words["gguf"].parent.glob(".*"))


@pytest.mark.parametrize(
    ("line", "code", "cure"),
    [
        ("bench {gguf} --shape 1x8", 2, "export it first"),
        ("bench {gguf} --context 8", 2, "export it first"),
        ("bench torch:{gguf} --context 8", 2, "export it first"),
        ("gate {gguf} {gguf}", 2, "export it first"),
        ("inspect {gguf}", 4, "export it, and inspect what was written"),
        ("run {gguf} --prompt hen", 2, "give what stepdown export wrote"),
        pytest.param("run {gguf} --text hen", 2, "give --prompt", marks=pytest.mark.slow),
        ("pack {gguf} -o {out}", 2, "export"),
    ],
)
def test_it_is_refused_with_a_cure(stepdown, words, line, code, cure):
    found = stepdown(*line.format(**words).split())
    assert found.code == code, found.err
    assert cure in found.err.split("to fix: ")[1]
    assert not words["out"].exists()


def test_no_plan_of_it_ends_in_an_internal_error(stepdown, words):
    found = stepdown(*"plan {gguf} --data {lines}".format(**words).split())
    assert found.code in {2, 4}, found.err
    assert "to fix: " in found.err


def test_a_compression_that_goes_on_knows_it_by_its_own_hash(stepdown, words):
    """What it is unpacked into is written anew each time, and need not have the same bytes."""
    assert stepdown(*"compress {gguf} --recipe {prune} --threads 1 -o {out}".format(**words).split()).code == 0
    record = json.loads((words["out"] / "stepdown.json").read_text())
    assert record["source"] == {"tiny.gguf": hash_file(words["gguf"])}
    assert (words["out"] / "tokenizer.json").is_file()
