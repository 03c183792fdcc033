"""The record of the gate's trials survives being cut, and so does what disturbs them."""

import subprocess
import sys

import pytest

from bench.suites.gate.trials import _NEIGHBOUR, Trial, TrialKind, append_trial, choose_next, read_trials
from runtimes.errors import CorruptArtifact


def make_trial(number):
    return Trial(
        kind="same",
        number=number,
        started="2026-11-22T05:00:00+00:00",
        budget_s=6.0,
        seconds=6.0,
        verdict="same",
        exit_code=0,
        base_ns=((1, 2),),
        head_ns=((1, 2),),
        base_run_ns=(1,),
        head_run_ns=(1,),
    )


def cut_last_line(path):
    path.write_bytes(path.read_bytes()[:-9])


def test_a_line_that_a_kill_cut_off_costs_that_trial_alone(tmp_path):
    path = tmp_path / "results" / "trials.jsonl"
    assert read_trials(path) == []
    for number in (0, 1):
        append_trial(path, make_trial(number))
    cut_last_line(path)
    assert [trial.number for trial in read_trials(path)] == [0]
    append_trial(path, make_trial(2))
    append_trial(path, make_trial(3))
    assert [trial.number for trial in read_trials(path)] == [0, 2, 3]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "trials.jsonl"
    append_trial(path, make_trial(0))
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(CorruptArtifact, match=r"trials\.jsonl:1"):
        read_trials(path)


def test_the_kind_furthest_behind_is_next():
    kinds = {
        name: TrialKind(name=name, head="copy", budget_s=1, wanted=wanted) for name, wanted in (("a", 4), ("b", 2))
    }
    assert choose_next(kinds, {"a": 1, "b": 1}, seed=0) == kinds["a"]
    assert choose_next(kinds, {"a": 4, "b": 1}, seed=0) == kinds["b"]
    assert choose_next(kinds, {"a": 4, "b": 2}, seed=0) is None


def test_a_neighbour_whose_parent_is_gone_ends():
    nobody = "0"
    subprocess.run([sys.executable, "-c", _NEIGHBOUR, "1", nobody], check=True, timeout=30)
