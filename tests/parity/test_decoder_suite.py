"""The decoder suite from end to end on a small model: every part, its tables, and another run that measures nothing."""

import json
import time

import numpy as np
import pytest

from bench.assets import PlainTexts
from bench.generation.measure import GenerationShape
from bench.packages import cache_directory
from bench.peers.environment import list_installed
from bench.suites.compression.commands import Commands
from bench.suites.decoder import suite
from bench.suites.decoder.models import PRECISIONS, TRIED, Workplace
from bench.suites.decoder.speed import measure_speed
from tests.unit.exporter.tracing import made_gguf

PROMPTS = 4
_WORDS = ("a", "be", "on", "it", "the", "and", "of", "to", "in", "he", "is", "was", "for", "at", "as", "by", "we")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    drawn = np.random.default_rng(0)
    texts = {name: folder / f"{name}.txt" for name in ("train", "held_out", "test")}
    for path in texts.values():
        lines = (" ".join(drawn.choice(_WORDS, 125)) for _ in range(24))
        path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        # 120 words of a tokenizer of bytes.
        patch.setitem(made_gguf.CONTEXT, "llama", 1024)
        model = made_gguf.make_llama(max_position_embeddings=1024, initializer_range=0.3)
        gguf = made_gguf.write_llama(folder / "tiny.gguf", model)
    commands = Commands(threads=1)
    return Workplace(folder=folder / "work", gguf=gguf, texts=PlainTexts(**texts), commands=commands)


def parse(*parts):
    words = [word for part in parts for word in ("--part", part)]
    return suite._parse([*words, "--prompts", str(PROMPTS), "--rounds", "2", "--generations", "20", "--threads", "1"])


@pytest.mark.slow
def test_all_parts_are_measured_once(work):
    options = parse("tokens", "export", "perplexity", "pruned", "agreement")
    found = suite.measure_parts(work, options)
    goals = {goal.name: goal for goal in found.goals}
    for part in ("tokens", "agreement"):
        for one in found.parts[part].values():
            assert {goal["verdict"] for goal in one["goals"]} == {"met"}, one
    (model,) = found.parts["perplexity"].values()
    measured = {row["precision"]: row for row in model["rows"]}
    assert set(PRECISIONS) <= set(measured)
    assert set(measured) | set(model["refused"]) == {*PRECISIONS, *TRIED}
    assert measured["fp32"]["same"] == PROMPTS
    assert abs(measured["weights-8"]["loss"]) < 0.05
    assert set(found.parts["pruned"]["32 bits"]["shipped"]) == {"dense", "pruned"}
    assert found.parts["export"]["fp32"]["stages"]
    text = suite.render_results(found)
    assert all(name in text for name in goals)
    # All is kept: out of time, and measured at once.
    late = Workplace(
        folder=work.folder, gguf=work.gguf, texts=work.texts, commands=Commands(threads=1, until=time.monotonic())
    )
    assert json.dumps(suite.measure_parts(late, options).parts) == json.dumps(found.parts)


@pytest.mark.slow
def test_llama_cpp_runs_beside_the_others(work):
    folder = cache_directory() / "environment-llama-cpp"
    if not (folder / "installed.txt").is_file() or "llama_cpp_python==0.3.36" not in list_installed(folder):
        pytest.skip("llama.cpp is not built: make bench SUITE=decoder builds it")
    shape = GenerationShape(context=128, streams=1)
    (found,) = measure_speed(work, folder / "bin" / "python", rounds=2, shapes=(shape,)).values()
    assert len(found["rows"]) == 8
    assert [goal["name"] for goal in found["goals"]] == [
        "tokens/s at 128, stepdown INT8, against llama.cpp Q8_0",
        "tokens/s at 128, stepdown weights-8, against llama.cpp Q8_0",
        "tokens/s at 128, stepdown weights-4, against llama.cpp Q4_0",
    ]
