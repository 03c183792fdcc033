"""The tables of the gate's trials say what the trials said."""

import numpy as np
import pytest

from bench.suites.gate.tables import describe_rate, is_alarm, judge_early, render_tables
from bench.suites.gate.trials import Trial


def make_trial(kind, slowdown, *, rounds=20, verdict="same", exit_code=0, hour="05", seconds=10.0, sequential=1.0):
    """Base takes 5 ms; head takes ``1 + slowdown`` times as long, in sequence ``sequential`` times."""
    draw = np.random.default_rng(0)
    base = 5e6 * np.exp(draw.normal(0, 0.001, (rounds, 3)))
    return Trial(
        kind=kind,
        number=0,
        started=f"2026-01-01T{hour}:10:00+00:00",
        budget_s=seconds,
        seconds=seconds,
        verdict=verdict,
        exit_code=exit_code,
        base_ns=tuple(tuple(map(int, block)) for block in base),
        head_ns=tuple(tuple(map(int, block)) for block in base * (1 + slowdown)),
        base_run_ns=tuple(5_000_000 + 1000 * (number % 7) for number in range(60)),
        head_run_ns=tuple(int(5_000_000 * sequential) + 1000 * (number % 5) for number in range(60)),
    )


def row_of(table, name):
    return next(line for line in table.splitlines() if line.startswith(f"| {name} "))


def test_rates_have_their_interval():
    # Clopper and Pearson: none of 300 leaves up to 1 - 0.025 ** (1 / 300) = 1.2 %.
    assert describe_rate(0, 300) == "0/300: 0.0% [0.0%, 1.2%]"
    assert describe_rate(60, 60) == "60/60: 100.0% [94.0%, 100.0%]"


def test_an_alarm_is_the_exit_code_whatever_the_time_said():
    assert is_alarm(make_trial("same", 0.0, exit_code=6))
    assert not is_alarm(make_trial("same", 0.0, verdict="inconclusive", exit_code=7))


def test_early_judges_the_rounds_done_by_then():
    trial = make_trial("slow-5", 0.1, seconds=30.0, rounds=24)
    assert judge_early(trial, 30.0) == "slower"
    assert judge_early(trial, 10.0) == "slower"  # 8 rounds
    assert judge_early(trial, 8.0) == "inconclusive"  # 6 rounds bound nothing at 99 %
    assert judge_early(trial, 0.5) == "inconclusive"


def test_tables_count_answers_rules_and_hours():
    trials = [
        make_trial("same", 0.0, sequential=1.06),
        make_trial("same", 0.0, hour="06", verdict="inconclusive", exit_code=7),
        make_trial("slow-10", 0.1, verdict="slower", exit_code=6, sequential=1.1),
    ]
    tables = render_tables(trials)
    answers, rules, hours, limit = tables.split("\n\n")
    assert row_of(answers, "same").split("|")[4:8] == ["      0 ", "    1 ", "            1 ", "      0 "]
    assert "+10.00%" in row_of(answers, "slow-10")
    assert [cell.split(":")[0].strip() for cell in row_of(rules, "same").split("|")[2:-1]] == [
        "0/2",
        "1/2",
        "1/2",
        "1/2",
    ]
    assert "2026-01-01 05 h UTC" in hours
    assert "2026-01-01 06 h UTC" in hours
    assert limit.endswith("0 of 1.")


def test_a_same_that_could_not_exclude_the_limit_would_be_counted():
    wrong = make_trial("slow-3", 0.08, verdict="same")
    assert render_tables([wrong]).endswith("1 of 1.")


@pytest.mark.parametrize("hits", [0, 1])
def test_a_single_trial_has_a_rate(hits):
    assert describe_rate(hits, 1).startswith(f"{hits}/1")
