"""``stepdown eval --measure`` and ``--metric perplexity`` on small models."""

import pytest

from tests.cli.test_run_and_eval import REVIEWS, write_tagger
from tests.cli.tiny_artifact import WORDS, write_texts, write_tokenizer


def test_what_an_artifact_costs_stands_beside_its_accuracy(stepdown, artifact, tmp_path):
    data = write_texts(tmp_path / "reviews.jsonl", REVIEWS)
    words = ("eval", artifact, "--data", data, "--measure", "latency,size,memory", "--shape", "2x8", "--json")
    found = stepdown(*words)
    assert found.code == 0, found.err
    document = found.json()
    assert (document["metric"], document["value"]) == ("accuracy", 0.75)
    assert document["size_bytes"] == (artifact / "onnxruntime" / "model.onnx").stat().st_size
    assert document["latency"].keys() == {"2x8"}
    assert 0 < document["latency"]["2x8"]["p50_ms"] <= document["latency"]["2x8"]["p99_ms"]
    assert document["peak_memory_bytes"] > 1e6


def test_a_checkpoint_is_measured_as_its_float_graph(stepdown, case_model):
    found = stepdown("eval", case_model("bert"), "--measure", "size")
    assert found.code == 0, found.err
    assert found.out.startswith("size ")


def test_size_alone_runs_nothing(stepdown, artifact):
    found = stepdown("eval", artifact, "--measure", "size", "--json")
    assert found.json() == {"size_bytes": (artifact / "onnxruntime" / "model.onnx").stat().st_size}


def test_perplexity_through_the_command_line(stepdown, tmp_path):
    write_tokenizer(tmp_path)
    model = write_tagger(tmp_path / "model.onnx", width=len(WORDS))
    data = write_texts(tmp_path / "texts.jsonl", [{"text": "a very good film " * 3}, {"text": "the bad film"}])
    found = stepdown("eval", model, "--data", data, "--metric", "perplexity", "--json")
    assert found.code == 0, found.err
    assert found.json()["value"] > 1
    assert found.json()["samples"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --data, --measure, or both"),
        (["--measure", "speed"], "use some of latency, size, memory"),
        (["--measure", "size", "--metric", "accuracy"], "no data to judge by"),
        (["--data", "x.jsonl", "--shape", "1x8"], "nothing is timed"),
        (["--data", "x.jsonl", "--metric", "perplexty"], "perplexity"),
    ],
)
def test_what_does_not_go_together(stepdown, artifact, options, message):
    found = stepdown("eval", artifact, *options)
    assert (found.code, found.out) == (2, "")
    assert message in found.err
