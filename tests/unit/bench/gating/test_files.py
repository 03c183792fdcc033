"""Two sample files: what is comparable, what is said, and what is refused."""

import json

import pytest

from bench.gating.files import Comparability, is_sample_file, judge_sides, make_side, read_side, split_place
from bench.gating.rule import GateLimits
from bench.recordings.recording import Conditions, Figures, write_recording
from runtimes.errors import CorruptArtifact, Inconclusive, ParityFailure, SubjectFailed, UsageError
from tests.unit.bench.made_recordings import MACHINE, make_recording

LIMITS = GateLimits()
BOTH = {"base": {"1x8": 5e6, "8x8": 2e7}, "head": {"1x8": 5e6, "8x8": 2e7}}


def judge(base, head, comparability=None, limits=LIMITS):
    return judge_sides(base, head, limits, comparability or Comparability())


def sides_of(recording):
    return tuple(make_side(recording, label, place="s.json") for label in ("base", "head"))


def apart(base=None, head=None, **more):
    """Two files of two runs."""
    first = make_recording({"model": base or {"1x8": 5e6}}, run="a", **more.get("first", {}))
    second = make_recording({"model": head or {"1x8": 5e6}}, run="b", seed=50, **more.get("second", {}))
    return make_side(first, None, place="a.json"), make_side(second, None, place="b.json")


def test_one_run_is_compared_by_round():
    result = judge(*sides_of(make_recording(BOTH)))
    assert (result.verdict, result.interleaved, result.exit_code) == ("same", True, 0)
    assert [shape.shape for shape in result.shapes] == ["1x8", "8x8"]


@pytest.mark.parametrize(("factor", "verdict", "code"), [(1.12, "slower", 6), (0.85, "faster", 0), (1.0, "same", 0)])
def test_two_runs_are_compared_as_wholes_and_a_note_says_so(factor, verdict, code):
    result = judge(*apart(head={"1x8": 5e6 * factor}))
    assert (result.verdict, result.interleaved, result.exit_code) == (verdict, False, code)
    assert any("two runs" in note and "interleaved" in note for note in result.notes)


def test_one_slow_shape_of_two_makes_the_answer():
    levels = {"base": BOTH["base"], "head": {"1x8": 5e6, "8x8": 2.4e7}}
    result = judge(*sides_of(make_recording(levels)))
    assert (result.verdict, [shape.verdict for shape in result.shapes]) == ("slower", ["same", "slower"])


def test_one_sample_is_inconclusive():
    recording = make_recording({"base": {"1x8": 5e6}, "head": {"1x8": 9e6}}, rounds=1)
    assert judge(*sides_of(recording)).exit_code == 7


def test_figures_gate_beside_time():
    figures = {"base": Figures(size_bytes=100, nodes=7), "head": Figures(size_bytes=101, nodes=7)}
    sides = sides_of(make_recording(BOTH, figures=figures))
    assert (judge(*sides).verdict, judge(*sides).exit_code) == ("same", 6)
    assert judge(*sides, limits=GateLimits(max_growth=0.02)).exit_code == 0


def test_shapes_that_one_side_lacks_are_noted():
    result = judge(*apart(base={"1x8": 5e6, "1x16": 9e6}))
    assert [shape.shape for shape in result.shapes] == ["1x8"]
    assert any("1x16" in note for note in result.notes)


def test_only_the_shapes_asked_for_are_judged():
    result = judge(*sides_of(make_recording(BOTH)), Comparability(shapes=("8x8",)))
    assert [shape.shape for shape in result.shapes] == ["8x8"]


@pytest.mark.parametrize(("head", "asked"), [({"2x8": 5e6}, ()), ({"1x8": 5e6}, ("4x4",))])
def test_no_common_shape_is_a_usage_error_that_lists_them(head, asked):
    with pytest.raises(UsageError, match=r"base has 1x8, head has .x8.*\n.*same shapes") as caught:
        judge(*apart(head=head), Comparability(shapes=asked))
    assert caught.value.exit_code == 2


OTHER = {**MACHINE, "cpu": "y", "versions": {"onnxruntime": "1.25.0"}}


def test_another_machine_is_refused_with_the_differences():
    with pytest.raises(Inconclusive, match=r"cpu: x -> y; versions: onnxruntime: 1.24.0 -> 1.25.0") as caught:
        judge(*apart(second={"machine": OTHER}))
    assert caught.value.exit_code == 7
    assert "--allow-different-machine" in str(caught.value)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "inconclusive"), (1.2, "slower"), (0.7, "faster")])
def test_another_machine_where_allowed_never_answers_same(factor, verdict):
    sides = apart(head={"1x8": 5e6 * factor}, second={"machine": OTHER})
    result = judge(*sides, Comparability(allow_different_machine=True))
    assert result.verdict == verdict
    assert result.differences == ("cpu: x -> y", "versions: onnxruntime: 1.24.0 -> 1.25.0")


def with_answers(values, feeds="same"):
    recording = make_recording({"model": {"1x8": 5e6}})
    from dataclasses import replace

    subject = replace(recording.subjects[0], answers={"1x8": {"logits": tuple(values)}})
    return replace(recording, subjects=(subject,), feeds={"1x8": feeds}, run=f"{values}")


def test_models_that_answer_differently_are_told_before_their_times():
    base, head = (make_side(with_answers(v), None, place="s") for v in ([1.0, 2.0, 3.0], [3.0, -2.0, 1.0]))
    with pytest.raises(ParityFailure, match="different models") as caught:
        judge(base, head)
    assert caught.value.exit_code == 5
    assert judge(base, head, Comparability(min_cosine=-1.0)).verdict == "same"


def test_models_that_answer_alike_need_no_note():
    base, head = (make_side(with_answers(v), None, place="s") for v in ([1.0, 2.0, 3.0], [1.01, 2.0, 3.0]))
    assert not any("answer" in note for note in judge(base, head).notes)


def test_answers_to_other_inputs_are_not_compared_and_that_is_said():
    base = make_side(with_answers([1.0, 2.0]), None, place="s")
    head = make_side(with_answers([-1.0, 2.0], feeds="other"), None, place="s")
    assert any("whether both models answer alike was not checked at 1x8" in note for note in judge(base, head).notes)


def test_a_disturbed_run_is_noted():
    first = {"conditions": Conditions(unstable=("the host took 9 % away: measure later",))}
    result = judge(*apart(first=first))
    assert "unstable (a.json): the host took 9 % away: measure later" in result.notes


def test_a_subject_against_itself_is_refused():
    side = make_side(make_recording(BOTH), "head", place="s.json")
    with pytest.raises(UsageError, match="same samples"):
        judge(side, side)


def test_a_failed_subject_is_an_error_that_names_the_failure():
    recording = make_recording({"base": BOTH["base"], "head": {}}, failures={"head": "it crashed (SIGSEGV)"})
    with pytest.raises(SubjectFailed, match=r"'head' was not measured: it crashed \(SIGSEGV\)") as caught:
        make_side(recording, "head", place="s.json")
    assert caught.value.exit_code == 4


def test_what_failed_beside_the_timing_is_a_note():
    recording = make_recording(BOTH, failures={"head": "it cannot be profiled"})
    result = judge(make_side(recording, "base", place="s.json"), make_side(recording, "head", place="s.json"))
    assert any("head was timed" in note and "it cannot be profiled" in note for note in result.notes)


@pytest.mark.parametrize("label", [None, "other"])
def test_a_file_of_several_needs_a_label_it_has(label):
    with pytest.raises(UsageError, match=r"s\.json:base, s\.json:head"):
        make_side(make_recording(BOTH), label, place="s.json")


def test_places_split_at_the_colon_that_ends_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "b:c.json", "samples", "m.onnx", "m.plan", "m.gguf"):
        (tmp_path / name).write_text("")
    found = {text: split_place(text) for text in ("a.json", "a.json:x:y", "b:c.json", "b:c.json:d", "no.json:l", "no")}
    assert {text: (str(path), label) for text, (path, label) in found.items()} == {
        "a.json": ("a.json", None),
        "a.json:x:y": ("a.json", "x:y"),
        "b:c.json": ("b:c.json", None),
        "b:c.json:d": ("b:c.json", "d"),
        "no.json:l": ("no.json", "l"),
        "no": ("no", None),
    }
    sample = [
        text
        for text in ("a.json", "a.json:x", "samples", "absent.json", "m.onnx", "m.plan", "m.gguf", "absent", ".")
        if is_sample_file(text)
    ]
    assert sample == ["a.json", "a.json:x", "samples", "absent.json"]


BROKEN = {
    "empty": lambda text: text[:0],
    "truncated": lambda text: text[: len(text) // 2],
    "schema": lambda text: text.replace('"schema":2', '"schema":1'),
    "kind": lambda text: text.replace("stepdown-samples", "other"),
    "NaN": lambda text: json.dumps(poison(json.loads(text), float("nan"))),
    "zero": lambda text: json.dumps(poison(json.loads(text), 0)),
}


def poison(document, value):
    document["recording"]["timings"][0]["ns"][0][0] = value
    return document


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused(tmp_path, name):
    path = tmp_path / "s.json"
    write_recording(path, make_recording({"model": {"1x8": 5e6}}))
    assert read_side(str(path)).label == "model"
    path.write_text(BROKEN[name](path.read_text()))
    with pytest.raises(CorruptArtifact) as caught:
        read_side(str(path))
    assert (caught.value.exit_code, str(path) in str(caught.value)) == (8, True)
    assert caught.value.cure
