"""The fixture ``stepdown_gate`` in pytest sessions of their own."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.recordings.recording import write_recording
from tests.unit.bench.made_recordings import make_recording

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]
PLUGIN = "exporter.pytest_plugin"

TESTS = """
def test_gate(stepdown_gate):
    result = stepdown_gate({base!r}, {head!r}{more})
    assert result.passes
    assert result.interleaved
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run a test of two subjects in one sample file, whether or not the installed entry point is there."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run_with(levels, more="", rounds=30):
        path = pytester.path / "s.json"
        write_recording(path, make_recording(levels, rounds=rounds))
        base, head = (f"{path}:{label}" for label in levels)
        pytester.makepyfile(TESTS.format(base=base, head=head, more=more))
        return pytester.runpytest_subprocess("-p", "no:stepdown", "-p", PLUGIN, "-ra")

    return run_with


def test_the_same_speed_passes(run):
    run({"base": {"1x8": 5e6}, "head": {"1x8": 5e6}}).assert_outcomes(passed=1)


def test_a_slowdown_fails_with_the_numbers(run):
    done = run({"base": {"1x8": 5e6}, "head": {"1x8": 6e6}})
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*stepdown gate: 1x8: slower: 5.0* ms -> 6.0* ms*"])


def test_the_limit_is_an_argument(run):
    run({"base": {"1x8": 5e6}, "head": {"1x8": 6e6}}, ", max_regression=0.5").assert_outcomes(passed=1)


def test_noise_fails_unless_it_may_skip(run):
    levels = {"base": {"1x8": 5e6}, "head": {"1x8": 5e6}}
    run(levels, rounds=1).assert_outcomes(failed=1)
    run(levels, ", skip_inconclusive=True", rounds=1).assert_outcomes(skipped=1)


def test_an_error_names_its_cure(run):
    done = run({"base": {"1x8": 5e6}, "head": {"2x8": 5e6}})
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        ["*UsageError: base and head share no shape*", "*to fix: measure both at the same shapes*"]
    )


def test_the_entry_point_names_the_plugin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"stepdown": PLUGIN}


def test_it_costs_a_session_nothing():
    code = (
        f"import sys, pytest, {PLUGIN}\n"
        "print([name for name in ('numpy', 'onnx', 'onnxruntime', 'torch', 'msgspec', 'bench') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
