"""The decoder suite: what it keeps, what it counts, what it calls met, and what its tables hold."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from bench.assets import PlainTexts
from bench.generation.measure import GenerationRecording, GenerationShape, GenerationTimes
from bench.generation.tables import HEADER
from bench.suites.compression.commands import Commands
from bench.suites.decoder import agreement, models, pruned, suite, tokens
from bench.suites.decoder.export import judge_seconds
from bench.suites.decoder.models import Workplace
from bench.suites.decoder.perplexity import judge_cache, judge_loss
from bench.suites.decoder.prompts import ask_in_chat, encode_prompts, write_prompts
from bench.suites.decoder.speed import BASE, FUSED, OURS, judge_recording
from bench.suites.decoder.windows import cut_windows, label_next, write_windows
from bench.suites.goals import Goal
from bench.timing.samples import Samples
from runtimes.errors import DataError, Inconclusive, UsageError
from runtimes.generation.generator import open_generator
from runtimes.generation.options import GenerationOptions
from tests.unit.runtimes.generation.tiny_decoder import CONTEXT, END, write_artifact

GOAL = asdict(Goal(name="a", wanted="b", measured="c", verdict="met"))


def work_in(folder, *, threads=1, **commands):
    texts = {name: folder / f"{name}.txt" for name in ("train", "held_out", "test")}
    for path in texts.values():
        path.write_text("some words\n")
    return Workplace(
        folder=folder / "work",
        gguf=folder / "tiny.gguf",
        texts=PlainTexts(**texts),
        commands=Commands(threads=threads, **commands),
    )


def test_what_was_measured_is_measured_again_only_for_another_model_or_machine(tmp_path):
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
    work_in(tmp_path, threads=2).record("a", {"export": "y"}, measure)
    assert len(calls) == 3


def test_when_the_time_is_up_only_what_is_kept_is_given(tmp_path):
    work_in(tmp_path).record("a", {}, lambda: {"value": 1})
    late = work_in(tmp_path, until=0.0)
    assert late.record("a", {}, lambda: {"value": 2}) == {"value": 1}
    with pytest.raises(Inconclusive):
        late.record("b", {}, lambda: {"value": 2})


def write_checkpoint(folder, weights="x"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(weights)
    return folder


def test_another_model_of_the_same_name_is_exported_by_itself(tmp_path):
    work = work_in(tmp_path)
    first, second = (write_checkpoint(tmp_path / name / "student", name) for name in "ab")
    again = write_checkpoint(tmp_path / "c" / "student", "a")
    places = [work.place_export(one, "fp32") for one in (first, again, second)]
    assert places[0] == places[1] != places[2]
    assert work.place_export(first, "weights-8") != places[0]


def test_other_texts_to_calibrate_with_are_another_export_but_not_in_float(tmp_path):
    work, student = work_in(tmp_path), write_checkpoint(tmp_path / "student")
    before = [work.place_export(student, precision) for precision in ("fp32", "weights-8")]
    work.texts.train.write_text("other words\n")
    after = [work.place_export(student, precision) for precision in ("fp32", "weights-8")]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]


def test_another_recipe_or_text_of_the_same_name_makes_another_model(tmp_path, monkeypatch):
    work, student = work_in(tmp_path), write_checkpoint(tmp_path / "student")
    recipe = tmp_path / "compression" / "recipes" / "r.toml"
    recipe.parent.mkdir(parents=True)
    monkeypatch.setattr(models.resources, "files", lambda package: tmp_path / package)
    places = []
    for path, text in ((recipe, "a = 1"), (recipe, "a = 1"), (recipe, "a = 2"), (work.texts.train, "other words")):
        path.write_text(text)
        places.append(work.place_compressed(student, "r", work.texts.train))
    assert places[0] == places[1]
    assert len(set(places)) == 3


def test_one_paragraph_in_so_many_is_of_the_whole_text(tmp_path):
    work = work_in(tmp_path)
    work.texts.train.write_text("".join(f"{number}\n" for number in range(7)))
    assert work.thin_out(1) == work.texts.train
    assert work.thin_out(3).read_text() == "0\n3\n6\n"


def test_what_the_exporter_refuses_is_told_and_asked_once(tmp_path):
    student = write_checkpoint(tmp_path / "student")
    _, why = work_in(tmp_path).try_export(student, "fp32")
    assert why
    assert work_in(tmp_path, until=0.0).try_export(student, "fp32")[1] == why


def make_recording(shape, steps_ms):
    def times(label, ms):
        one = {"warmup_ns": (), "machine": {}, "label": label}
        ns = int(ms * 1e6)
        first, step = Samples(ns=((10 * ns,),) * 9, **one), Samples(ns=((ns, ns),) * 9, **one)
        return GenerationTimes(first=first, step=step, held_bytes=0, tokens=())

    found = {label: times(label, ms) for label, ms in steps_ms.items()}
    return GenerationRecording(times={shape: found}, loaded_bytes={}, peak_bytes={}, machine={})


INT8, EIGHT, FOUR = (OURS[precision] for precision in ("int8-dynamic", "weights-8", "weights-4"))
STEPS = {BASE: 10.0, FUSED: 7.5, INT8: 5.0, EIGHT: 6.5, FOUR: 7.0, "llama.cpp Q8_0": 6.0, "llama.cpp Q4_0": 4.0}


def test_tokens_a_second_are_judged_against_llama_cpp_at_equal_bits():
    shape = GenerationShape(context=128, streams=1)
    verdicts = {goal.name: goal.verdict for goal in judge_recording(make_recording(shape, STEPS), shape)}
    assert verdicts == {
        "tokens/s at 128, stepdown INT8, against llama.cpp Q8_0": "met",
        "tokens/s at 128, stepdown weights-8, against llama.cpp Q8_0": "missed",
        "tokens/s at 128, stepdown weights-4, against llama.cpp Q4_0": "missed",
    }


def test_a_prompt_of_512_is_judged_against_float_and_other_shapes_are_not():
    shape = GenerationShape(context=512, streams=1)
    goals = judge_recording(make_recording(shape, STEPS), shape)
    verdicts = [("met", INT8, BASE), ("missed", EIGHT, BASE), ("missed", FOUR, BASE)]
    verdicts += [("missed", label, FUSED) for label in (INT8, EIGHT, FOUR)]
    assert [(goal.verdict, goal.name, goal.wanted) for goal in goals] == [
        (verdict, f"prefill of 512, {label}, against {base}", ">= 1.60") for verdict, label, base in verdicts
    ]
    several = GenerationShape(context=512, streams=8)
    assert judge_recording(make_recording(several, STEPS), several) == ()


@pytest.mark.parametrize(
    ("precision", "value", "verdict"),
    [("weights-8", 10.09, "met"), ("int8-static", 10.2, "missed"), ("weights-4", 10.3, "met")],
)
def test_a_loss_of_perplexity_is_judged_by_its_bits(precision, value, verdict):
    assert judge_loss("m", precision, 10.0, value).verdict == verdict


def test_of_nothing_nothing_is_met():
    assert judge_cache("m", "fp32", 0, 0).verdict == "missed"
    assert judge_cache("m", "fp32", 5, 5).verdict == "met"
    count = {"kind": "chat", "batch": 1}
    for prompts, agreeing, verdict in ((0, 0, "missed"), (50, 0, "missed"), (50, 50, "met")):
        told = {**count, "prompts": prompts, "cached": agreeing, "uncached": agreeing}
        assert tokens.judge_tokens(told).verdict == verdict
    found = {"pipeline": 0, "command": 0, "streams": 0, "prompts": 0, "generations": 0, "growth_bytes": 0}
    assert {goal.verdict for goal in agreement.judge_agreement("fp32", found)} == {"missed"}


def test_an_export_is_judged_by_its_seconds():
    assert [judge_seconds(seconds).verdict for seconds in (59.0, 61.0)] == ["met", "missed"]


def test_int8_that_the_exporter_does_not_make_has_no_goal_and_float_misses_it():
    refused = {"pruned": "its cache changes tokens"}
    int8, in_float = (
        pruned._say_refused(bits, precision, refused)
        for bits, precision in (("8 bits", "int8-dynamic"), ("32 bits", "fp32"))
    )
    assert int8["goals"] == []
    assert [goal["verdict"] for goal in in_float["goals"]] == ["missed"]
    assert "its cache changes tokens" in pruned.render_pruned({"8 bits": int8})


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return write_artifact(tmp_path_factory.mktemp("suite") / "decoder")


def test_agreement_behind_a_cache_and_without_is_counted_by_prompt(export):
    session = tokens.open_decoder(export, 1)
    rows = [[5, 6], [7, 8, 9], [10]]
    with open_generator(export, threads=1) as generator:
        said = [generator.complete_ids([row], GenerationOptions(max_new_tokens=4))[0] for row in rows]
    assert {len(one) for one in said} == {4}
    assert tokens.count_agreeing(session, rows, said, 2) == {"cached": 3, "uncached": 3}
    said[1][2] = (said[1][2] + 1) % 200
    assert tokens.count_agreeing(session, rows, said, 2) == {"cached": 2, "uncached": 2}


def test_streams_side_by_side_are_compared_with_each_alone(export):
    rows = [[number, number + 1] for number in range(5, 29)]
    with open_generator(export, threads=1) as generator:
        expected = [generator.complete_ids([row], GenerationOptions(max_new_tokens=4))[0] for row in rows]
        assert agreement.count_mixed(generator, rows, expected) == 0
        expected[3] = [*expected[3][::-1], 1]
        assert agreement.count_mixed(generator, rows, expected) >= 1


def test_memory_is_read_behind_the_first_tenth_and_at_the_end(export):
    with open_generator(export, threads=1) as generator:
        assert abs(agreement.measure_growth(generator, [[5, 6]], 50)) < 50e6


def write_texts(path):
    path.write_text("".join(f"{place} " * 130 + "\n" for place in range(20)) + "too short\n")
    return path


def test_every_prompt_is_another_text_of_mixed_length(export, tmp_path):
    prompts = write_prompts(write_texts(tmp_path / "test.txt"), 12)
    assert len(set(prompts)) == 12
    assert sorted({len(prompt.split()) for prompt in prompts}) == [3, 8, 16, 32, 64, 120]
    with open_generator(export, threads=1) as generator:
        plain, chat = (encode_prompts(generator, asked) for asked in (prompts, ask_in_chat(prompts)))
    assert all(len(said) > len(given) for said, given in zip(chat, plain, strict=True))


@pytest.mark.parametrize("count", [0, 21])
def test_fewer_prompts_than_asked_for_are_refused(count, tmp_path):
    with pytest.raises(UsageError, match=f"{count} prompts are asked for, and there are 1 to 20"):
        write_prompts(write_texts(tmp_path / "test.txt"), count)


def test_half_of_the_prompts_of_each_length_are_conversations(tmp_path):
    prompts = write_prompts(write_texts(tmp_path / "test.txt"), 12)
    asked = agreement.mix_prompts(prompts)
    plain = [one for one in asked if isinstance(one, str)]
    assert len(plain) == 6
    assert {len(one.split()) for one in plain} == {3, 8, 16, 32, 64, 120}
    assert [one if isinstance(one, str) else one[0]["content"] for one in asked] == prompts


def test_windows_hold_every_token_once_and_ends_are_not_judged(export, tmp_path):
    path = tmp_path / "test.txt"
    path.write_text("".join("abcdefgh" * (1 + place) + "\n\n" for place in range(9)))
    with open_generator(export, threads=1) as generator:
        windows = write_windows(path, generator, tmp_path / "windows")
        assert write_windows(path, generator, tmp_path / "windows") == windows
        text = [token for line in path.read_text().split() for token in (*generator.encode(line), END)]
    found = np.load(windows.path)
    assert windows.length == CONTEXT
    np.testing.assert_array_equal(found["input_ids"].ravel(), text[: windows.count * CONTEXT])
    judged = found["labels"] != -100
    np.testing.assert_array_equal(found["labels"][:, :-1][judged[:, :-1]], found["input_ids"][:, 1:][judged[:, :-1]])
    assert not (found["labels"] == END).any()
    assert not judged[:, -1].any()
    assert judged.sum() == windows.count * (CONTEXT - 1) - (found["input_ids"][:, 1:] == END).sum()


def test_what_fills_no_window_is_left_out_and_too_little_is_refused(export, tmp_path):
    assert cut_windows(np.arange(7), 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert label_next(np.array([[5, 9, 6]]), 9).tolist() == [[-100, 6, -100]]
    (tmp_path / "test.txt").write_text("abc\n")
    with open_generator(export, threads=1) as generator, pytest.raises(DataError, match="fills no window of 64"):
        write_windows(tmp_path / "test.txt", generator, tmp_path / "windows")


def test_the_tables_show_all_parts_and_every_goal():
    speed = {"1 x 128": {"rows": [["m"] * len(HEADER)], "memory": [["m", "1", "2"]], "goals": [GOAL]}}
    row = {"precision": "weights-8", "perplexity": 10.0, "loss": 0.01, "same": 4, "prompts": 5}
    count = {"kind": "plain", "batch": 1, "prompts": 5, "cached": 5, "uncached": 4}
    answers = {"pipeline": 5, "command": 5, "streams": 5, "prompts": 5, "generations": 9, "growth_bytes": 1e6}
    cost = {"seconds": 50.0, "peak_bytes": 2e9, "bytes": 5e8, "shipped": "float, merged", "stages": {"trace": 9.0}}
    zeros = {**speed["1 x 128"], "perplexity": {"m": 12.0}, "shipped": {"m": "float, sparse"}}
    parts = {
        "tokens": {"plain 1": {**count, "goals": [GOAL]}},
        "export": {"fp32": {**cost, "goals": [GOAL]}},
        "speed": speed,
        "perplexity": {"m": {"rows": [row], "windows": "3 windows", "refused": {"int8-static": "no"}, "goals": [GOAL]}},
        "pruned": {"32 bits": zeros},
        "agreement": {"weights-8": {**answers, "goals": [GOAL]}},
    }
    goals = tuple(goal for found in parts.values() for goal in suite._read_goals(found))
    assert len(goals) == 6
    machine = {"cpu": "c", "isa": "i", "threads": 2}
    text = suite.render_results(suite.Results(machine=machine, parts=json.loads(json.dumps(parts)), goals=goals))
    for part in ("4 of 5", "12.000", "+1.00%", "float, sparse", "trace 9.0 s", "int8-static: no", "AMX file alone"):
        assert part in text
    assert text.count("MET") == 6


def test_a_plan_names_the_parts_once():
    options = suite._parse(["--part", "tokens", "--part", "speed", "--part", "tokens"])
    assert options.part == ["tokens", "speed"]
    assert suite._parse([]).part == ["tokens", "export", "speed", "perplexity", "pruned", "agreement"]


@pytest.mark.parametrize("option", ["--every", "--threads", "--rounds", "--prompts", "--generations"])
@pytest.mark.parametrize("number", ["0", "-1", "1.5", "many"])
def test_a_count_is_a_whole_number_from_1_on(option, number, capsys):
    with pytest.raises(SystemExit) as caught:
        suite._parse([option, number])
    assert caught.value.code == 2
    assert f"argument {option}: {number} is no whole number from 1 on" in capsys.readouterr().err
