import pytest

from bench.timing.compare import MIN_ROUNDS, compare
from bench.timing.samples import Samples
from exporter.candidates.choice import decide, decide_untimed
from exporter.candidates.timing import FINAL, SCREENING, Timing, geometric_mean, make_ratio
from exporter.candidates.trial import Trial
from exporter.judging.judge import Judgement
from exporter.onnxruntime.candidates import PLAIN, CandidateSpec
from exporter.reporting.report import Ratio
from runtimes.artifact import Artifact
from runtimes.errors import BudgetMissed


@pytest.fixture
def make_trial(tmp_path):
    def make(spec, *, size=1000, drop=0.0, worst=0.0):
        path = tmp_path / f"{spec.name}.onnx"
        path.write_bytes(b"\0" * size)
        artifact = Artifact(path=path, kind="onnx", sha256="", inputs=(), outputs=(), files=(path,))
        return Trial(spec=spec, artifact=artifact, judgement=Judgement(metrics={}, drop=drop, worst_drop=worst))

    return make


FLOAT = CandidateSpec(arithmetic="float", plain=True)
DYNAMIC = CandidateSpec(arithmetic="int8-dynamic")
STATIC = CandidateSpec(arithmetic="int8-static")
SPARSE = CandidateSpec(arithmetic="int8-dynamic", sparse=True)


def _speed(ratio, *, low=None, high=None):
    bound = Ratio(ratio=ratio, low=ratio * 0.98 if low is None else low, high=ratio * 1.02 if high is None else high)
    return {"1x16": bound, "8x128": bound}


def _decide(trials, speeds, *, twins=None, forced=False, max_drop=0.01):
    finalists = tuple(trial.name for trial in trials)
    timing = Timing(speeds={PLAIN: _speed(1.0), **speeds}, finalists=finalists, twins=twins or {})
    return decide(trials, timing, max_drop=max_drop, forced=forced)


def test_the_fastest_within_the_budget_ships(make_trial):
    trials = [make_trial(FLOAT), make_trial(DYNAMIC), make_trial(STATIC)]
    decision = _decide(trials, {DYNAMIC.name: _speed(2.0), STATIC.name: _speed(1.5)})
    assert decision.chosen == DYNAMIC.name
    assert "times slower than the fastest" in decision.reasons[STATIC.name]


def test_what_drops_too_much_does_not_ship(make_trial):
    trials = [make_trial(FLOAT), make_trial(DYNAMIC, drop=0.02), make_trial(STATIC)]
    decision = _decide(trials, {DYNAMIC.name: _speed(2.0), STATIC.name: _speed(1.5)})
    assert decision.chosen == STATIC.name
    assert "drops 2.00%, more than 1.00%" in decision.reasons[DYNAMIC.name]


def test_one_text_that_came_out_wrong_is_enough(make_trial):
    trials = [make_trial(FLOAT), make_trial(DYNAMIC, drop=0.005, worst=0.018), make_trial(STATIC, worst=0.0119)]
    decision = _decide(trials, {DYNAMIC.name: _speed(2.0), STATIC.name: _speed(1.5)})
    assert decision.chosen == STATIC.name
    assert "one sample drops 1.80%, more than 1.20%" in decision.reasons[DYNAMIC.name]


def test_float_ships_where_nothing_is_faster(make_trial):
    trials = [make_trial(FLOAT, size=4000), make_trial(DYNAMIC)]
    decision = _decide(trials, {DYNAMIC.name: _speed(0.8)})
    assert decision.chosen == PLAIN
    assert "slower than plain float at 1x16, 8x128" in decision.reasons[DYNAMIC.name]
    assert "nothing within the budget was faster" in decision.verdict


def test_slower_at_one_shape_is_slower(make_trial):
    trials = [make_trial(FLOAT), make_trial(DYNAMIC)]
    speed = {"1x16": Ratio(ratio=3.0, low=2.9, high=3.1), "8x128": Ratio(ratio=0.9, low=0.85, high=0.95)}
    decision = _decide(trials, {DYNAMIC.name: speed})
    assert decision.chosen == PLAIN


def test_an_open_bound_does_not_show_that_a_candidate_is_slower(make_trial):
    trials = [make_trial(FLOAT), make_trial(DYNAMIC)]
    open_bound = Ratio(ratio=0.9, low=None, high=None)
    decision = _decide(trials, {DYNAMIC.name: {"1x16": Ratio(ratio=2.0, low=1.9, high=2.1), "8x128": open_bound}})
    assert decision.chosen == DYNAMIC.name
    assert "timed too briefly for a bound" in decision.verdict


@pytest.mark.parametrize(("rounds", "bounded"), [(1, False), (2, True)])
def test_one_round_of_timing_leaves_the_bound_open(rounds, bounded):
    base, head = (
        Samples(label=name, ns=((ns,),) * rounds, warmup_ns=(), machine={})
        for name, ns in (("base", 300), ("head", 200))
    )
    ratio = make_ratio(compare(base, head))
    assert ratio.ratio == pytest.approx(1.5)
    assert (ratio.low is not None, ratio.high is not None) == (bounded, bounded)


def test_every_pass_over_the_candidates_has_rounds_enough_for_a_bound():
    assert min(SCREENING.blocks, FINAL.blocks) >= MIN_ROUNDS


def test_a_tie_with_plain_float_is_no_reason_to_be_slower(make_trial):
    trials = [make_trial(FLOAT, size=4000), make_trial(DYNAMIC)]
    decision = _decide(trials, {DYNAMIC.name: _speed(0.99, high=1.05)})
    assert decision.chosen == PLAIN
    assert decision.reasons[DYNAMIC.name] == "no faster than plain float"


def test_what_was_only_screened_cannot_win(make_trial):
    trials = [make_trial(FLOAT), make_trial(DYNAMIC), make_trial(STATIC)]
    timing = Timing(
        speeds={PLAIN: _speed(1.0), DYNAMIC.name: _speed(2.0), STATIC.name: _speed(2.5)},
        finalists=(PLAIN, DYNAMIC.name),
    )
    assert decide(trials, timing, max_drop=0.01, forced=False).chosen == DYNAMIC.name


def test_a_tie_goes_to_the_smaller(make_trial):
    trials = [make_trial(FLOAT), make_trial(DYNAMIC, size=2000), make_trial(STATIC, size=1500)]
    decision = _decide(trials, {DYNAMIC.name: _speed(2.0), STATIC.name: _speed(1.98)})
    assert decision.chosen == STATIC.name


def test_a_tie_in_speed_and_size_goes_to_the_more_accurate(make_trial):
    trials = [make_trial(FLOAT), make_trial(DYNAMIC, size=2000, drop=0.006), make_trial(STATIC, size=2010, drop=0.002)]
    decision = _decide(trials, {DYNAMIC.name: _speed(2.0), STATIC.name: _speed(1.98)})
    assert decision.chosen == STATIC.name


def test_a_forced_precision_ships_even_where_it_is_slower(make_trial):
    trials = [make_trial(FLOAT), make_trial(DYNAMIC)]
    decision = _decide(trials, {DYNAMIC.name: _speed(0.8)}, forced=True)
    assert decision.chosen == DYNAMIC.name


def test_a_forced_precision_that_misses_the_budget_fails(make_trial):
    trials = [make_trial(FLOAT), make_trial(DYNAMIC, drop=0.05)]
    with pytest.raises(BudgetMissed, match=r"the best, int8-dynamic: drops 5\.00%") as caught:
        _decide(trials, {DYNAMIC.name: _speed(2.0)}, forced=True)
    assert caught.value.exit_code == 5
    assert "--max-drop" in str(caught.value)


def _slower_at_one(high):
    return {"1x16": Ratio(ratio=0.9, low=0.85, high=high), "8x128": Ratio(ratio=3.0, low=2.9, high=3.1)}


@pytest.mark.parametrize("forced", [False, True])
def test_what_is_slower_than_its_dense_twin_at_one_shape_does_not_ship(make_trial, forced):
    trials = [make_trial(FLOAT), make_trial(DYNAMIC), make_trial(SPARSE)]
    speeds = {DYNAMIC.name: _speed(2.0), SPARSE.name: _speed(3.0)}
    decision = _decide(trials, speeds, twins={SPARSE.name: _slower_at_one(0.95)}, forced=forced)
    assert decision.chosen == DYNAMIC.name
    assert decision.reasons[SPARSE.name] == "slower than int8-dynamic, its dense twin, at 1x16"


@pytest.mark.parametrize("high", [1.01, None])
def test_what_may_be_as_fast_as_its_dense_twin_ships(make_trial, high):
    trials = [make_trial(FLOAT), make_trial(DYNAMIC), make_trial(SPARSE)]
    speeds = {DYNAMIC.name: _speed(2.0), SPARSE.name: _speed(3.0)}
    assert _decide(trials, speeds, twins={SPARSE.name: _slower_at_one(high)}).chosen == SPARSE.name


def test_a_twin_that_may_not_ship_keeps_nothing_from_shipping(make_trial):
    """It is slower than plain float at a shape where its sparse form is as fast."""
    trials = [make_trial(FLOAT), make_trial(DYNAMIC), make_trial(SPARSE)]
    uneven = {"1x16": Ratio(ratio=3.0, low=2.9, high=3.1), "8x128": Ratio(ratio=0.8, low=0.7, high=0.9)}
    speeds = {DYNAMIC.name: uneven, SPARSE.name: _speed(2.0)}
    assert _decide(trials, speeds, twins={SPARSE.name: _slower_at_one(0.95)}).chosen == SPARSE.name


def test_untimed_choice_follows_the_stated_order(make_trial):
    trials = [make_trial(FLOAT), make_trial(STATIC), make_trial(DYNAMIC, drop=0.02)]
    decision = decide_untimed(trials, max_drop=0.01, made_for="avx2", forced=False)
    assert decision.chosen == STATIC.name
    assert "not timed" in decision.verdict


def test_untimed_choice_of_a_forced_precision_is_never_float(make_trial):
    with pytest.raises(BudgetMissed):
        decide_untimed([make_trial(FLOAT), make_trial(DYNAMIC, drop=0.5)], max_drop=0.01, made_for="avx2", forced=True)


def test_the_geometric_mean_is_over_shapes():
    speed = {"a": Ratio(ratio=2.0, low=1, high=3), "b": Ratio(ratio=8.0, low=1, high=9)}
    assert geometric_mean(speed) == pytest.approx(4.0)
