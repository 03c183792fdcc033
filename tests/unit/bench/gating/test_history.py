"""The last entry against the recent past: steps with commit and date, outliers, other machines."""

import pytest

from bench.gating.history import WINDOW, judge_history
from bench.gating.rule import GateLimits
from bench.recordings.recording import Conditions, Figures
from runtimes.errors import Inconclusive, SubjectFailed, UsageError
from tests.unit.bench.made_recordings import MACHINE, make_history, make_recording

LIMITS = GateLimits()


def judge(history, **more):
    return judge_history(history, LIMITS, place="h", **more)


def test_a_lasting_slowdown_is_slower_with_commit_date_and_effect():
    judged = judge(make_history([5e6] * 14 + [5.6e6] * 4))
    assert (judged.result.verdict, judged.result.exit_code) == ("slower", 6)
    (step,) = judged.steps
    assert (step.shape, step.commit, step.started) == ("1x8", f"{14:040x}", "2026-11-15T04:00:00+00:00")
    assert (step.before, step.after) == (14, 4)
    assert 1 / step.ratio == pytest.approx(1.12, abs=0.02)
    said = next(note for note in judged.result.notes if "since" in note)
    assert "slower since 000000000000 (2026-11-15" in said


def test_a_lasting_speedup_passes():
    judged = judge(make_history([5e6] * 12 + [4e6] * 4))
    assert (judged.result.verdict, judged.result.exit_code) == ("faster", 0)


def test_no_step_is_an_answer():
    judged = judge(make_history([5e6] * 20, noise=0.005))
    assert (judged.result.verdict, judged.steps) == ("same", ())
    assert "1x8: no step in 20 entries" in judged.result.notes


def test_one_slow_entry_is_not_called_slower_until_another_confirms_it():
    history = make_history([5e6] * 14 + [6.5e6] * 2)
    once, twice = judge(history[:-1]), judge(history)
    assert (once.result.verdict, once.result.exit_code, once.steps) == ("inconclusive", 7, ())
    assert any("add another" in note for note in once.result.notes)
    assert twice.result.verdict == "slower"


def test_an_old_outlier_does_not_matter():
    levels = [5e6] * 20
    levels[9] *= 2
    assert judge(make_history(levels, noise=0.005)).result.verdict == "same"


def test_a_step_that_was_undone_passes():
    judged = judge(make_history([5e6] * 10 + [6e6] * 5 + [5e6] * 6, noise=0.005))
    assert [step.ratio < 1 for step in judged.steps] == [True, False]
    assert judged.result.verdict == "faster"


def test_noise_that_hides_the_limit_is_inconclusive():
    assert judge(make_history([5e6] * 12, noise=0.05)).result.verdict == "inconclusive"


def test_few_entries_are_inconclusive_with_an_open_bound():
    judged = judge(make_history([5e6] * 3))
    assert judged.result.verdict == "inconclusive"
    assert (judged.result.shapes[0].low, judged.result.shapes[0].high) == (0.0, float("inf"))


def test_the_first_entry_has_nothing_to_compare_with():
    with pytest.raises(Inconclusive, match="no earlier entry is comparable"):
        judge(make_history([5e6]))


def test_other_machines_are_not_mixed_in():
    other = make_history([2e6] * 10, machine={**MACHINE, "cpu": "y"})
    mine = make_history([5e6] * 12, noise=0.005)
    judged = judge((*mine[:6], *other, *mine[6:]))
    assert (judged.result.verdict, judged.steps) == ("same", ())
    assert judged.result.shapes[0].rounds == 12
    assert any(note.startswith("10 entries were left out") for note in judged.result.notes)
    with pytest.raises(Inconclusive):
        judge((*other, mine[0]))


def test_what_happened_long_ago_is_not_the_recent_past():
    judged = judge(make_history([4e6] * 10 + [5e6] * WINDOW, noise=0.005, started="2026-11-01"))
    assert (judged.result.verdict, judged.steps) == ("same", ())
    assert any("10 older entries" in note for note in judged.result.notes)


def test_a_reference_cancels_the_moods_of_the_machine():
    levels = [5e6] * 12 + [5.6e6] * 3
    moody = {"noise": 0.15}
    assert judge(make_history(levels, **moody)).result.verdict == "inconclusive"
    judged = judge(make_history(levels, reference=[3e6] * 15, **moody))
    assert judged.result.verdict == "slower"
    assert judged.result.head.startswith("model of")
    assert any("relative to ref" in note for note in judged.result.notes)


def test_another_reference_is_not_mixed_in():
    old = make_history([5e6] * 10, reference=[3e6] * 10)
    new = make_history([5e6] * 9, reference=[1e6] * 9, sha256="cd")
    judged = judge((*old, *new))
    assert judged.result.shapes[0].rounds == 9


def test_a_size_that_grew_fails_until_it_is_the_usual_one():
    sizes = [Figures(size_bytes=size) for size in (100, 100, 120, 120, 120, 120)]
    history = [
        make_recording({"model": {"1x8": 5e6}}, run=str(i), seed=i, figures={"model": one})
        for i, one in enumerate(sizes)
    ]
    assert [judge(history[:end]).result.exit_code for end in range(2, 7)] == [7, 6, 6, 6, 7]


def test_a_subject_must_be_named_among_several():
    levels = {label: {"1x8": 5e6} for label in ("ref", "a", "b")}
    history = [make_recording(levels, run=str(i), seed=9 * i) for i in range(10)]
    with pytest.raises(UsageError, match="h:a, h:b"):
        judge(history)
    assert judge(history, label="b").result.head.startswith("b of")
    with pytest.raises(UsageError, match="no subject is called 'c'"):
        judge(history, label="c")


def test_a_subject_that_failed_last_is_named():
    last = make_recording({"model": {}}, failures={"model": "it hung"})
    with pytest.raises(SubjectFailed, match="it hung"):
        judge((*make_history([5e6] * 9), last))


def test_a_disturbed_last_entry_is_noted():
    history = make_history([5e6] * 9, conditions=Conditions(unstable=("busy: wait",)))
    assert "unstable (last entry): busy: wait" in judge(history).result.notes
