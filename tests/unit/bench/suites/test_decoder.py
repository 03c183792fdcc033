"""The decoder suite: what it keeps, what it counts, what it calls met, and what its tables hold."""

import json
from dataclasses import asdict

import pytest

from bench.generation import GenerationRecording, GenerationShape, GenerationTimes
from bench.generation_tables import HEADER
from bench.samples import Samples
from bench.suites import decoder, decoder_agreement, decoder_prompts, decoder_tokens
from bench.suites.compression_commands import Commands
from bench.suites.decoder_models import Workplace
from bench.suites.decoder_perplexity import judge_loss
from bench.suites.decoder_speed import FLOAT, OURS, judge_recording
from bench.suites.encoder_goals import Goal
from runtimes.errors import Inconclusive
from runtimes.generation.generator import open_generator
from runtimes.generation.options import GenerationOptions
from tests.unit.runtimes.generation.tiny_decoder import write_artifact

GOAL = asdict(Goal(name="a", wanted="b", measured="c", verdict="met"))


def work_in(folder, **commands):
    return Workplace(folder=folder, commands=Commands(threads=1, **commands))


def test_what_was_measured_is_measured_again_only_for_another_model(tmp_path):
    calls = []

    def measure():
        calls.append(1)
        return {"value": (1, 2)}

    work = work_in(tmp_path)
    assert work.record("a", {"export": "x"}, measure) == {"value": [1, 2]}
    assert work.record("a", {"export": "x"}, measure) == {"value": [1, 2]}
    assert len(calls) == 1
    work.record("a", {"export": "y"}, measure)
    assert len(calls) == 2


def test_when_the_time_is_up_only_what_is_kept_is_given(tmp_path):
    work_in(tmp_path).record("a", {}, lambda: {"value": 1})
    late = work_in(tmp_path, until=0.0)
    assert late.record("a", {}, lambda: {"value": 2}) == {"value": 1}
    with pytest.raises(Inconclusive):
        late.record("b", {}, lambda: {"value": 2})


def make_recording(shape, steps_ms):
    def times(label, ms):
        one = {"warmup_ns": (), "machine": {}, "label": label}
        ns = int(ms * 1e6)
        first, step = Samples(ns=((10 * ns,),) * 9, **one), Samples(ns=((ns, ns),) * 9, **one)
        return GenerationTimes(first=first, step=step, held_bytes=0, tokens=())

    found = {label: times(label, ms) for label, ms in steps_ms.items()}
    return GenerationRecording(times={shape: found}, loaded_bytes={}, peak_bytes={}, machine={})


STEPS = {FLOAT: 10.0, OURS[8]: 5.0, OURS[4]: 7.0, "llama.cpp Q8_0": 6.0, "llama.cpp Q4_0": 4.0}


def test_tokens_a_second_are_judged_against_llama_cpp_at_equal_bits():
    shape = GenerationShape(context=128, streams=1)
    verdicts = {goal.name: goal.verdict for goal in judge_recording(make_recording(shape, STEPS), shape)}
    assert verdicts == {
        "tokens/s at 128, 8 bits, against llama.cpp Q8_0": "met",
        "tokens/s at 128, 4 bits, against llama.cpp Q4_0": "missed",
    }


def test_a_prompt_of_512_is_judged_against_float_and_other_shapes_are_not():
    shape = GenerationShape(context=512, streams=1)
    goals = judge_recording(make_recording(shape, STEPS), shape)
    assert [(goal.wanted, goal.verdict) for goal in goals] == [(">= 1.60", "met"), (">= 1.60", "missed")]
    several = GenerationShape(context=512, streams=8)
    assert judge_recording(make_recording(several, STEPS), several) == ()


@pytest.mark.parametrize(("bits", "value", "verdict"), [(8, 10.09, "met"), (8, 10.2, "missed"), (4, 10.3, "met")])
def test_a_loss_of_perplexity_is_judged_by_its_bits(bits, value, verdict):
    assert judge_loss("m", bits, 10.0, value).verdict == verdict


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return write_artifact(tmp_path_factory.mktemp("suite") / "decoder")


def test_agreement_behind_a_cache_and_without_is_counted_by_prompt(export):
    session = decoder_tokens.open_decoder(export, 1)
    rows = [[5, 6], [7, 8, 9], [10]]
    with open_generator(export, threads=1) as generator:
        said = [generator.complete_ids([row], GenerationOptions(max_new_tokens=4))[0] for row in rows]
    assert {len(one) for one in said} == {4}
    assert decoder_tokens.count_agreeing(session, rows, said, 2) == {"cached": 3, "uncached": 3}
    said[1][2] = (said[1][2] + 1) % 200
    assert decoder_tokens.count_agreeing(session, rows, said, 2) == {"cached": 2, "uncached": 2}


def test_streams_side_by_side_are_compared_with_each_alone(export):
    rows = [[number, number + 1] for number in range(5, 29)]
    with open_generator(export, threads=1) as generator:
        expected = [generator.complete_ids([row], GenerationOptions(max_new_tokens=4))[0] for row in rows]
        assert decoder_agreement.count_mixed(generator, rows, expected) == 0
        expected[3] = [*expected[3][::-1], 1]
        assert decoder_agreement.count_mixed(generator, rows, expected) >= 1


def test_memory_is_read_behind_the_first_tenth_and_at_the_end(export):
    with open_generator(export, threads=1) as generator:
        assert abs(decoder_agreement.measure_growth(generator, [[5, 6]], 50)) < 50e6


def test_every_prompt_is_another_text_of_mixed_length(export, monkeypatch, tmp_path):
    path = tmp_path / "test.txt"
    path.write_text("".join(f"{place} " * 130 + "\n" for place in range(20)) + "too short\n")

    class Texts:
        test = path

    monkeypatch.setattr(decoder_prompts.assets, "english", lambda: Texts)
    prompts = decoder_prompts.write_prompts(12)
    assert len(set(prompts)) == 12
    assert sorted({len(prompt.split()) for prompt in prompts}) == [3, 8, 16, 32, 64, 120]
    plain, chat = (
        encode(export / "onnxruntime", prompts)
        for encode in (decoder_prompts.encode_plain, decoder_prompts.encode_chat)
    )
    assert all(len(said) > len(given) for said, given in zip(chat, plain, strict=True))


def test_the_tables_show_all_parts_and_every_goal():
    speed = {"1 x 128": {"rows": [["m"] * len(HEADER)], "memory": [["m", "1", "2"]], "goals": [GOAL]}}
    row = {"bits": 8, "perplexity": 10.0, "loss": 0.01, "differing": "0 of 5"}
    count = {"kind": "plain", "batch": 1, "prompts": 5, "cached": 5, "uncached": 4}
    agreement = {"pipeline": 5, "command": 5, "streams": 5, "prompts": 5, "generations": 9, "growth_bytes": 1e6}
    parts = {
        "tokens": {"counts": [count], "goals": [GOAL]},
        "speed": speed,
        "perplexity": {"m": {"rows": [row], "goals": [GOAL]}},
        "pruned": {"32": {**speed["1 x 128"], "perplexity": {"m": 12.0}}},
        "agreement": {"8": {**agreement, "goals": [GOAL]}},
    }
    goals = tuple(goal for found in parts.values() for goal in decoder._read_goals(found))
    assert len(goals) == 5
    machine = {"cpu": "c", "isa": "i", "threads": 2}
    text = decoder.render_results(decoder.Results(machine=machine, parts=json.loads(json.dumps(parts)), goals=goals))
    assert "4 of 5" in text
    assert "12.000" in text
    assert "+1.00%" in text
    assert text.count("MET") == 5


def test_a_plan_names_the_parts_once():
    options = decoder._parse(["--part", "tokens", "--part", "speed", "--part", "tokens"])
    assert options.part == ["tokens", "speed"]
    assert decoder._parse([]).part == ["tokens", "speed", "perplexity", "pruned", "agreement"]
