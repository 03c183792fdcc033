"""``stepdown gate``: exit codes, outputs for CI, and what it refuses; models are really run."""

import json
from xml.etree import ElementTree

import pytest

from bench.recordings.history import append_history
from bench.recordings.recording import read_recording, write_recording
from tests.cli.tiny_chain import write_chain
from tests.unit.bench.made_recordings import MACHINE, make_history, make_recording

# Wide, so that noise decides nothing: what is told apart here differs by far more, or not at all.
WIDE = ("--max-regression", "50%", "--shape", "4x1", "--time-budget", "60")


@pytest.fixture
def files(tmp_path):
    """Sample files: one of two subjects, and one of a slower subject of another run."""
    both = make_recording({"base": {"1x8": 5e6}, "head": {"1x8": 5e6}})
    write_recording(tmp_path / "both.json", both)
    write_recording(tmp_path / "slow.json", make_recording({"slow": {"1x8": 6e6}}, run="other"))
    return tmp_path


def test_the_same_model_passes_and_its_samples_can_be_judged_again(stepdown, tmp_path):
    base, head = (write_chain(tmp_path / f"{name}.onnx", 4) for name in ("base", "head"))
    samples, junit, markdown, report = (tmp_path / name for name in ("s.json", "j.xml", "m.md", "r.html"))
    outputs = ("-o", samples, "--junit", junit, "--markdown", markdown, "--report", report)
    result = stepdown("gate", base, head, *WIDE, *outputs, "--json")
    assert result.code == 0, result.err
    found = result.json()
    assert (found["verdict"], found["interleaved"], found["exit_code"], found["notes"]) == (
        "same",
        True,
        0,
        found["notes"],
    )
    assert [shape["shape"] for shape in found["shapes"]] == ["4x1"]
    assert {figure["name"] for figure in found["figures"]} >= {"size_bytes", "nodes", "parameters", "load_memory_bytes"}
    assert ElementTree.parse(junit).getroot().get("failures") == "0"
    assert markdown.read_text().startswith("### stepdown gate: same")
    assert "Verdict" in report.read_text()
    recording = read_recording(samples)
    assert [subject.label for subject in recording.subjects] == ["base", "head"]
    again = stepdown("gate", f"{samples}:base", f"{samples}:head", "--max-regression", "50%", "--json")
    assert again.code == 0
    assert again.json()["shapes"] == found["shapes"]
    assert not any("answer" in note for note in again.json()["notes"])


def test_a_slower_model_fails(stepdown, tmp_path):
    base, head = write_chain(tmp_path / "base.onnx", 2), write_chain(tmp_path / "head.onnx", 60)
    result = stepdown("gate", base, head, *WIDE)
    assert result.code == 6
    assert result.out.strip().endswith("head against base: slower and larger")
    assert "stepdown: 4x1: slower" in result.err
    assert "to fix:" in result.err


def test_models_that_differ_are_told_so_before_any_time(stepdown, tmp_path):
    base, head = write_chain(tmp_path / "base.onnx", 2), write_chain(tmp_path / "head.onnx", 2, sign=-1)
    junit = tmp_path / "j.xml"
    junit.write_text("an older report that passed")
    result = stepdown("gate", base, head, *WIDE, "--junit", junit)
    assert (result.code, result.out) == (5, "")
    assert "different models" in result.err
    assert " ms" not in result.err
    assert ElementTree.parse(junit).getroot().get("errors") == "1"


def test_models_that_may_differ_are_judged_by_their_speed(stepdown, tmp_path):
    base, head = write_chain(tmp_path / "base.onnx", 2), write_chain(tmp_path / "head.onnx", 2, sign=-1)
    result = stepdown("gate", base, head, *WIDE, "--min-cosine", "-1")
    assert result.code == 0, result.err


def test_a_regression_leaves_valid_json_and_tells_ci(stepdown, files, monkeypatch):
    summary, junit = files / "summary.md", files / "j.xml"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = stepdown("gate", files / "both.json:base", files / "slow.json", "--json", "--github", "--junit", junit)
    assert (result.code, result.json()["verdict"], result.json()["exit_code"]) == (6, "slower", 6)
    assert result.err.startswith("::error title=stepdown gate%3A 1x8::slower")
    assert summary.read_text().startswith("before\n### stepdown gate: slower")
    assert ElementTree.parse(junit).getroot().get("failures") == "1"


def test_a_refusal_replaces_an_older_report_too(stepdown, files):
    junit = files / "j.xml"
    junit.write_text("an older report that passed")
    result = stepdown(
        "gate", files / "both.json:base", files / "slow.json", "-o", files / "both.json", "--junit", junit
    )
    assert result.code == 2
    assert ElementTree.parse(junit).getroot().get("errors") == "1"


def test_a_report_that_cannot_be_drawn_is_no_pass(stepdown, files):
    junit, report = files / "j.xml", files / "r.html"
    result = stepdown("gate", files / "slow.json", files / "both.json:base", "--report", report, "--junit", junit)
    assert result.code == 2
    assert "samples of two runs cannot be drawn together" in result.err
    assert ElementTree.parse(junit).getroot().get("errors") == "1"
    assert not report.exists()


def test_annotations_need_no_summary(stepdown, files, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    result = stepdown("gate", files / "both.json:base", files / "both.json:head", "--github")
    assert (result.code, result.err) == (0, "")


def test_another_machine_is_inconclusive_with_the_differences(stepdown, files):
    write_recording(
        files / "far.json", make_recording({"head": {"1x8": 5e6}}, run="far", machine={**MACHINE, "cpu": "y"})
    )
    words = ("gate", files / "both.json:base", files / "far.json")
    result = stepdown(*words, "--json")
    assert (result.code, result.json()["error"]["kind"]) == (7, "Inconclusive")
    assert "cpu: x -> y" in result.json()["error"]["what"]
    allowed = stepdown(*words, "--allow-different-machine", "--json")
    assert (allowed.code, allowed.json()["differences"]) == (7, ["cpu: x -> y"])


def test_a_history_names_the_step(stepdown, tmp_path):
    path = tmp_path / "h.jsonl"
    for entry in make_history([5e6] * 12 + [6e6] * 3):
        append_history(path, entry)
    result = stepdown("gate", "--history", path)
    assert result.code == 6
    assert "slower since 000000000000 (2026-11-13" in result.out
    (step,) = stepdown("gate", "--history", f"{path}:model", "--json").json()["steps"]
    assert (step["commit"], step["after"]) == (f"{12:040x}", 3)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "give BASE and HEAD, or --history"),
        (["both.json:base"], 2, "give BASE and HEAD"),
        (["both.json:base", "slow.json", "--history", "h"], 2, "by itself"),
        (["both.json", "slow.json"], 2, "both.json:base, both.json:head"),
        (["both.json:base", "model.onnx"], 2, "give two models (recommended"),
        (["both.json:base", "absent.json"], 2, "no such sample file"),
        (["both.json:base", "empty.json"], 8, "cannot be read"),
        (["both.json:base", "slow.json", "--shape", "8x8"], 2, "do not both have 8x8"),
        (["both.json:base", "slow.json", "--report", "r.html"], 2, "two runs cannot be drawn"),
        (["both.json:base", "slow.json", "--threads", "2"], 2, "judged as they are"),
        (["both.json:base", "slow.json", "-o", "new.json"], 2, "judged as they are"),
        (["both.json:base", "slow.json", "-o", "both.json"], 2, "--force"),
        (["both.json:base", "slow.json", "--max-regression", "0"], 2, "a limit above 0"),
        (["both.json:base", "slow.json", "--time-budget", "nan"], 2, "seconds above 0"),
        (["both.json:base", "slow.json", "--min-cosine", "1.5"], 2, "between -1 and 1"),
        (["absent", "model.onnx"], 2, "no such model"),
        (["model.onnx", "broken.onnx"], 8, "broken.onnx"),
        (["model.onnx", "model.onnx", "--timeout", "0.001"], 4, "it did not answer within 0.001 s"),
        (["model.onnx", "model.onnx", "-o", "absent/s.json"], 2, "no such folder"),
        (["both.json:base", "slow.json", "--junit", "absent/j.xml"], 2, "no such folder"),
        (["--history", "empty.json", "-o", "new.json"], 2, "a history is judged as it is"),
        (["--history", "empty.json", "--shape", "1x8"], 2, "a history is judged as it is"),
        (["--history", "absent"], 2, "no such history"),
        (["--history", "empty.json"], 8, "the history is empty"),
    ],
)
def test_what_cannot_be_judged_has_a_code_and_a_cure(stepdown, files, monkeypatch, words, code, said):
    monkeypatch.chdir(files)
    (files / "empty.json").write_text("")
    (files / "broken.onnx").write_bytes(b"no model")
    write_chain(files / "model.onnx", 1)
    before = sorted(path.name for path in files.iterdir())
    result = stepdown("gate", *words)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert "to fix:" in result.err
    assert "Traceback" not in result.err
    assert sorted(path.name for path in files.iterdir()) == before


def test_the_document_has_no_number_that_json_lacks(stepdown, tmp_path):
    recording = make_recording({"base": {"1x8": 5e6}, "head": {"1x8": 5e6}}, rounds=1)
    write_recording(tmp_path / "s.json", recording)
    result = stepdown("gate", tmp_path / "s.json:base", tmp_path / "s.json:head", "--json")
    shape = json.loads(result.out, parse_constant=pytest.fail)["shapes"][0]
    assert (result.code, shape["low"], shape["high"]) == (7, 0.0, None)


def test_what_two_benches_wrote_is_compared_by_answers_too(stepdown, tmp_path):
    history = tmp_path / "h.jsonl"
    for name, sign in (("one", 1), ("other", 1), ("different", -1)):
        model = write_chain(tmp_path / f"{name}.onnx", 2, sign=sign)
        words = ("--shape", "4x1", "--time-budget", "1", "--history", history)
        assert stepdown("bench", f"model={model}", *words, "-o", tmp_path / f"{name}.json").code == 0
    alike = stepdown("gate", tmp_path / "one.json", tmp_path / "other.json", "--json")
    assert alike.code in {0, 6, 7}
    assert not any("answer" in note for note in alike.json()["notes"])
    different = stepdown("gate", tmp_path / "one.json", tmp_path / "different.json")
    assert (different.code, different.out) == (5, "")
    assert "different models" in different.err
    short = stepdown("gate", "--history", history, "--json")
    assert (short.code, short.json()["verdict"]) == (7, "inconclusive")
