"""Stored tokens: the same where the margin says so, another only as far as arithmetic reaches."""

import numpy as np
import pytest

from runtimes.generation.generator import open_generator
from runtimes.generation.token_probe import compare_answers, record_answer
from runtimes.parity import Tolerance
from tests.unit.runtimes.generation.tiny_decoder import CONTEXT, change_config, reference, write_export

TEXTS = ("Hello", "a", "é€")
STEPS = 8
EXACT = Tolerance(atol=1e-4, rtol=0.0, min_cosine=0.9999, reason="the same arithmetic")


@pytest.fixture
def probe(generator):
    """(inputs, outputs) of the decoder itself."""
    inputs, outputs = {}, {}
    for number, text in enumerate(TEXTS):
        ids = generator.encode(text)
        inputs |= {f"text.{number}": np.frombuffer(text.encode(), np.uint8), f"ids.{number}": np.array(ids)}
        answer = record_answer(generator.trace(ids, STEPS))
        outputs |= {f"{kind}.{number}": array.copy() for kind, array in answer.items()}
    return inputs, outputs


def count(probe):
    """How many tokens are stored: up to `STEPS` a prompt."""
    return sum(len(probe[1][f"tokens.{number}"]) for number in range(len(TEXTS)))


def test_what_is_recorded_is_what_onnx_runtime_takes(home, probe):
    inputs, outputs = probe
    for number in range(len(TEXTS)):
        tokens = outputs[f"tokens.{number}"].tolist()
        assert tokens == reference(home, inputs[f"ids.{number}"].tolist(), STEPS)
        assert outputs[f"logits.{number}"].argmax() == tokens[0]
        assert outputs[f"peaks.{number}"][0] == outputs[f"logits.{number}"].max()
        assert (outputs[f"margins.{number}"] >= 0).all()


def test_the_same_model_gives_the_same(generator, probe):
    verdict = compare_answers(generator, *probe, EXACT)
    assert verdict.mismatch is None
    assert verdict.said.startswith("{0} of {0} tokens as stored".format(count(probe)))


def test_settings_of_the_model_change_nothing(probe, tmp_path):
    folder = write_export(tmp_path)
    text = (folder / "genai_config.json").read_text()
    settings = text.replace('"repetition_penalty": 1.0', '"repetition_penalty": 9.0')
    settings = settings.replace('"no_repeat_ngram_size": 0', '"no_repeat_ngram_size": 1')
    (folder / "genai_config.json").write_text(settings.replace('"do_sample": false', '"do_sample": true'))
    with open_generator(folder, threads=1) as other:
        assert compare_answers(other, *probe, EXACT).said.startswith("{0} of {0}".format(count(probe)))


def test_another_model_is_found_out(probe, tmp_path):
    with open_generator(write_export(tmp_path, seed=1), threads=1) as other:
        mismatch = compare_answers(other, *probe, EXACT).mismatch
    assert "token 0 behind prompt 0 is another" in mismatch.what
    assert mismatch.expected.startswith(str(probe[1]["tokens.0"][0]))


def test_another_tokenizer_is_found_out(generator, probe):
    inputs, outputs = probe
    mismatch = compare_answers(generator, {**inputs, "ids.1": np.array([7, 8])}, outputs, EXACT).mismatch
    assert "the tokenizer gives other tokens for 'a'" in mismatch.what
    assert (mismatch.expected, mismatch.found) == ("[7, 8]", str(generator.encode("a")))


@pytest.mark.parametrize("name", ["logits.2", "peaks.1"])
def test_logits_out_of_their_tolerance_are_found_out(generator, probe, name):
    inputs, outputs = probe
    outputs[name][-1] += 1e-2
    mismatch = compare_answers(generator, inputs, outputs, EXACT).mismatch
    assert "does not answer here as it did" in mismatch.what
    assert f"'{name}' is off at 1" in mismatch.found


def store_another(generator, probe, place, *, margin):
    """Store the second likeliest token at a place, as if it had been the first; return how far it is below that."""
    inputs, outputs = probe
    steps = list(generator.trace(inputs["ids.0"].tolist(), STEPS))
    logits = steps[place][1]
    second = int(np.argsort(logits)[-2])
    outputs["tokens.0"][place] = second
    outputs["peaks.0"][place] = logits[second]
    outputs["margins.0"][place] = margin
    return float(logits.max() - logits[second])


@pytest.mark.parametrize("place", [0, 3, STEPS - 1])
def test_a_near_tie_may_fall_the_other_way_and_ends_what_is_compared(generator, probe, place):
    short = store_another(generator, probe, place, margin=0.0)
    room = Tolerance(atol=short, rtol=0.0, reason="moves two logits by twice that")
    verdict = compare_answers(generator, *probe, room)
    assert verdict.mismatch is None
    kept = count(probe) - len(probe[1]["tokens.0"]) + place
    assert verdict.said.startswith(f"{kept} of {count(probe)} tokens as stored")
    assert "may have turned it" in verdict.said


@pytest.mark.parametrize(("margin", "allowed"), [(0.0, True), (0.9, True), (1.1, False), (3.0, False)])
def test_how_far_a_token_may_fall_is_what_its_margin_leaves(generator, probe, margin, allowed):
    """Two logits move by 2 a: of that the margin is used up first."""
    short = store_another(generator, probe, 2, margin=0.0)
    probe[1]["margins.0"][2] = margin * short
    verdict = compare_answers(generator, *probe, Tolerance(atol=short, rtol=0.0, reason="2 a - margin >= short"))
    assert (verdict.mismatch is None) == allowed
    if not allowed:
        assert "not for want of exact arithmetic" in verdict.mismatch.what


def test_an_answer_ends_where_the_model_ends_it(home, generator, tmp_path):
    ids = generator.encode("Hello")
    stop = reference(home, ids, STEPS)[2]
    folder = write_export(tmp_path)
    change_config(folder, eos_token_id=[stop])
    with open_generator(folder, threads=1) as stopping:
        tokens = record_answer(stopping.trace(ids, STEPS))["tokens"].tolist()
    assert tokens == reference(home, ids, STEPS, stop)


def test_an_answer_ends_with_the_context(generator):
    ids = generator.encode("x" * (CONTEXT - 2))
    assert len(record_answer(generator.trace(ids, 2))["tokens"]) == 2
