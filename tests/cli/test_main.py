"""What all verbs share: help, versions, suggestions, errors, streams."""

import json
import subprocess
import sys

import pytest

from exporter.cli import doctor
from exporter.cli.main import VERBS

HEAVY = ("numpy", "torch", "onnx", "onnxruntime", "onnx_ir", "rich", "transformers", "tokenizers", "pydantic")


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_imports_nothing_heavy(words):
    code = (
        "import sys\nfrom exporter.cli.main import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "usage: stepdown" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example_and_json(stepdown, verb):
    result = stepdown(verb, "--help")
    assert result.code == 0
    assert f"stepdown {verb}" in result.out.partition("example:")[2]
    assert "--json" in result.out


def test_help_lists_every_verb(stepdown):
    result = stepdown("--help")
    assert all(f"  {verb}" in result.out for verb in VERBS)


def test_version(stepdown):
    assert stepdown("--version").out.startswith("stepdown 0.")


def test_without_a_verb_help_goes_to_stderr(stepdown):
    result = stepdown()
    assert (result.code, result.out) == (2, "")
    assert "usage: stepdown" in result.err


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["exprot"], "did you mean export?"),
        (["doctor", "--jsn"], "did you mean --json?"),
        (["export", "m", "-o", "new", "--targets", "onnxruntime"], "did you mean --target?"),
        (["export", "m", "-o", "new", "--target", "onnxruntim"], "did you mean 'onnxruntime'?"),
        (["export", "m", "-o", "new", "--precision", "int-8"], "did you mean 'int8'?"),
        (["export", "m", "-o", "new", "--target", "coreml"], "choose one of onnxruntime, tensorrt"),
        (["export", "m", "-o", "new", "--shape", "8"], "such as 8x128"),
        (["export", "m", "-o", "new", "--max-drop", "150%"], "such as 1% or 0.01"),
        (["export", "m", "-o", "new", "--threads", "0"], "at least 1"),
        (["export", "m"], "-o/--output"),
        (["calibrate", "m", "-o", "new", "--shard", "2/2"], "counted from 0"),
        (["calibrate", "-o", "new"], "give MODEL and --calibration-data"),
        (["eval", "m", "--data", "d.jsonl", "--metric", "cosine"], "--reference"),
        (["eval", "m", "--data", "d.jsonl", "--metric", "f1"], "macro-f1"),
        (["run", "m"], "--text, --inputs or --prompt"),
        (["run", "m", "--seed", "3"], "give --prompt"),
        (["run", "m", "--prompt", "a", "--text", "b"], "leave one of them out"),
        (["run", "m", "--prompt", "a", "--top-k", "5"], "give a temperature"),
    ],
)
def test_a_wrong_word_is_a_usage_error_with_a_cure(stepdown, words, suggestion):
    result = stepdown(*words)
    assert (result.code, result.out) == (2, "")
    assert suggestion in result.err
    assert "Traceback" not in result.err


def test_options_are_not_guessed(stepdown):
    assert stepdown("doctor", "--js").code == 2


def test_an_error_is_json_too(stepdown, tmp_path):
    result = stepdown("inspect", tmp_path / "absent", "--json")
    error = result.json()["error"]
    assert (result.code, error["exit_code"], error["kind"]) == (4, 4, "UnsupportedModel")
    assert error["cure"]


def test_debug_shows_the_traceback(tmp_path):
    command = [sys.executable, "-m", "exporter.cli", "--debug", "inspect", str(tmp_path / "absent")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr


def test_a_defect_of_ours_shows_no_traceback(stepdown, monkeypatch):
    def fail(_arguments, _progress):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(doctor, "execute", fail)
    result = stepdown("doctor")
    assert result.code == 1
    assert "internal error: ZeroDivisionError" in result.err
    assert "Traceback" not in result.err


def test_a_reader_that_goes_away_is_no_error(artifact):
    command = f"{sys.executable} -m exporter.cli inspect {artifact} | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_doctor(stepdown):
    found = {(one["topic"], one["name"]): one for one in stepdown("doctor", "--json").json()["findings"]}
    assert found["runtime", "onnxruntime"]["ok"]
    assert ("gpu", "NVIDIA") in found
    assert found["cpu", "instruction set"]["detail"]
    assert "instruction set" in stepdown("doctor").out


def test_doctor_says_which_extra_is_missing():
    code = (
        "import sys\nfor name in ('onnxruntime', 'tokenizers'): sys.modules[name] = None\n"
        "from exporter.cli.main import main\nsys.exit(main(['doctor', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {(one["topic"], one["name"]): one for one in json.loads(done.stdout)["findings"]}
    assert not found["runtime", "onnxruntime"]["ok"]
    assert "stepdown[" in found["stage", "run, eval"]["detail"]
