"""``stepdown bench --context`` on a tiny decoder: what it prints and writes, and what each mistake says."""

import json

import pytest

from tests.unit.runtimes.generation.tiny_decoder import write_artifact

QUICK = ("--context", 5, "--new-tokens", 3, "--threads", 1, "--time-budget", 0.01)


@pytest.fixture
def decoder(tmp_path):
    return write_artifact(tmp_path / "decoder")


def test_two_decoders_are_measured_written_and_compared(stepdown, decoder, tmp_path):
    other, output = write_artifact(tmp_path / "other", seed=1), tmp_path / "generation.json"
    words = ("bench", decoder, other, "--vs", other, *QUICK, "--context", 9, "--streams", 1, "--streams", 2)
    result = stepdown(*words, "-o", output)
    assert result.code == 0, result.err
    document = json.loads(output.read_text())
    assert [(one["context"], one["streams"]) for one in document["shapes"]] == [(5, 1), (5, 2), (9, 1), (9, 2)]
    assert list(document["shapes"][0]["models"]) == ["other", "decoder"]
    assert {len(block) for block in document["shapes"][0]["models"]["decoder"]["step_ns"]} == {2}
    lines = result.out.splitlines()
    assert len(lines) == 9
    assert "tokens/s" in lines[0]
    assert lines[-1] == str(output)
    assert "against other" in result.err


def test_json_has_every_nanosecond(stepdown, decoder):
    result = stepdown("bench", decoder, *QUICK, "--json")
    assert result.code == 0, result.err
    (model,) = result.json()["shapes"][0]["models"].values()
    assert model["tokens_per_second"] > 0
    assert result.json()["peak_bytes"]["decoder"] > 0


def test_an_encoder_does_not_generate(stepdown, artifact):
    result = stepdown("bench", artifact, *QUICK)
    assert result.code == 2
    assert "does not generate text" in result.err
    assert "stepdown export" in result.err


@pytest.mark.parametrize(
    "words",
    [("--shape", "1x8"), ("--per-op",), ("--report", "r.html"), ("--data", "d.jsonl"), ("--history", "h.jsonl")],
)
def test_what_is_measured_of_runs_is_refused(stepdown, decoder, words):
    result = stepdown("bench", decoder, *QUICK, *words)
    assert result.code == 2
    assert words[0] in result.err
    assert "leave it out" in result.err


def test_a_context_beyond_the_models_is_refused(stepdown, decoder):
    result = stepdown("bench", decoder, "--context", 70)
    assert result.code == 2
    assert "do not fit in the model's 64" in result.err


def test_a_single_token_measures_nothing(stepdown, decoder):
    result = stepdown("bench", decoder, "--context", 5, "--new-tokens", 1)
    assert result.code == 2
    assert "measures nothing" in result.err


def test_what_is_there_is_kept(stepdown, decoder, tmp_path):
    output = tmp_path / "generation.json"
    output.write_text("mine")
    result = stepdown("bench", decoder, *QUICK, "-o", output)
    assert result.code == 2
    assert output.read_text() == "mine"
    assert stepdown("bench", decoder, *QUICK, "-o", output, "--force").code == 0
