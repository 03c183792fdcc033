"""The rule of the gate: every answer, its edges, and how often it is wrong on noise whose truth is known."""

import math

import numpy as np
import pytest

from bench.gating.rule import GateLimits, count_needed_rounds, decide, is_tight, judge_figures, judge_times
from bench.recordings.recording import Figures
from bench.timing.samples import Samples
from runtimes.errors import UsageError

LIMITS = GateLimits()


def samples(label, medians):
    return Samples(label=label, ns=tuple((int(m),) for m in medians), warmup_ns=(), machine={})


def pair(slowdown, rounds=20, noise=0.0, seed=0):
    """Base and a head that takes ``1 + slowdown`` times as long, with noise of each round."""
    draw = np.random.default_rng(seed)
    base = 1e8 * np.exp(draw.normal(0, noise, rounds))
    head = 1e8 * (1 + slowdown) * np.exp(draw.normal(0, noise, rounds))
    return samples("base", base), samples("head", head)


def judge(slowdown, limits=LIMITS, **how):
    return judge_times({"1x8": pair(slowdown, **how)}, limits, paired=True)[0]


@pytest.mark.parametrize(
    ("slowdown", "verdict"),
    [
        (0.0, "same"),
        (0.02, "same"),
        (0.049, "same"),  # less than the limit was lost, and is known to be less
        (0.0501, "slower"),
        (0.5, "slower"),
        (-0.02, "same"),
        (-0.06, "faster"),
        (-0.5, "faster"),
    ],
)
def test_without_noise_the_limit_decides(slowdown, verdict):
    found = judge(slowdown)
    assert found.verdict == verdict
    assert found.ratio == pytest.approx(1 / (1 + slowdown), rel=1e-6)
    assert found.rounds == 20


def test_a_wide_bound_around_the_limit_is_inconclusive():
    assert judge(0.03, noise=0.05, rounds=12).verdict == "inconclusive"


def test_few_rounds_are_inconclusive_however_clear():
    needed = count_needed_rounds(LIMITS.confidence)
    assert needed == 8  # 2 * 2**-8 is less than 1 %
    assert judge(0.5, rounds=needed - 1).verdict == "inconclusive"
    assert judge(0.5, rounds=needed).verdict == "slower"
    assert judge(0.5, rounds=1).verdict == "inconclusive"


@pytest.mark.parametrize("rounds", [10, 16])
def test_noise_alone_is_hardly_ever_slower(rounds):
    verdicts = [judge(0.0, noise=0.015, rounds=rounds, seed=seed).verdict for seed in range(200)]
    assert verdicts.count("slower") == 0
    assert verdicts.count("same") > 150


def test_a_loss_of_the_limit_is_hardly_ever_missed():
    verdicts = [judge(0.05, noise=0.012, rounds=36, seed=seed).verdict for seed in range(200)]
    assert verdicts.count("slower") >= 190
    assert verdicts.count("same") <= 4  # half a percent is meant; 4 of 200 are exceeded once in 300 seeds


def test_same_always_excludes_the_limit():
    for seed in range(200):
        found = judge(0.03, noise=0.02, rounds=14, seed=seed)
        assert found.verdict != "same" or found.low > 1 / 1.05


def test_more_shapes_make_no_more_false_alarms():
    """Ten shapes at half the limit, where each alone may alarm in half a percent of trials."""
    alarms = 0
    for seed in range(60):
        pairs = {f"{n}x8": pair(0.025, noise=0.01, rounds=20, seed=seed * 10 + n) for n in range(10)}
        alarms += decide(judge_times(pairs, LIMITS, paired=True)) == "slower"
    assert alarms <= 3


def test_one_slow_shape_among_many_is_found():
    pairs = {f"{n}x8": pair(0.0, noise=0.005, seed=n) for n in range(5)} | {"9x9": pair(0.2, noise=0.005)}
    verdicts = {found.shape: found.verdict for found in judge_times(pairs, LIMITS, paired=True)}
    assert verdicts.pop("9x9") == "slower"
    assert set(verdicts.values()) == {"same"}


def test_measured_apart_nothing_pairs():
    base, head = pair(0.1, rounds=20)
    longer = samples("head", [ns[0] for ns in head.ns] * 2)
    found = judge_times({"1x8": (base, longer)}, LIMITS, paired=False)[0]
    assert found.verdict == "slower"
    assert found.rounds == 20  # of the side with fewer


def test_drift_is_in_the_ratio_only_when_measured_apart():
    drift = np.linspace(1, 2, 20)
    base, head = samples("base", 1e8 * drift), samples("head", 1e8 * drift)
    assert judge_times({"1x8": (base, head)}, LIMITS, paired=True)[0].verdict == "same"
    assert judge_times({"1x8": (base, head)}, LIMITS, paired=False)[0].verdict == "inconclusive"


@pytest.mark.parametrize(
    ("verdicts", "overall"),
    [
        (["same", "slower", "inconclusive"], "slower"),
        (["faster", "inconclusive"], "inconclusive"),
        (["faster", "same"], "faster"),
        (["same"], "same"),
    ],
)
def test_the_worst_verdict_counts(verdicts, overall):
    slowdown = {"same": 0.0, "slower": 0.2, "faster": -0.2}
    shapes = [
        judge(0.05, noise=0.1, rounds=9) if verdict == "inconclusive" else judge(slowdown[verdict])
        for verdict in verdicts
    ]
    assert [shape.verdict for shape in shapes] == verdicts
    assert decide(shapes) == overall


def test_tight_looks_at_the_width_alone():
    assert is_tight({"1x8": pair(0.5)}, LIMITS)
    assert not is_tight({"1x8": pair(0.0, noise=0.05)}, LIMITS)
    assert not is_tight({"1x8": pair(0.0, rounds=15)}, LIMITS)
    assert is_tight({"1x8": pair(0.0, rounds=16)}, LIMITS)
    assert not is_tight({"1x8": pair(0.0), "2x8": pair(0.0, noise=0.05)}, LIMITS)


def test_no_shape_in_common():
    with pytest.raises(UsageError, match="no shape in common"):
        judge_times({}, LIMITS, paired=True)


@pytest.mark.parametrize(
    "wrong", [{"max_regression": 0.0}, {"max_regression": 2.0}, {"confidence": 1.0}, {"max_growth": -1}]
)
def test_limits_out_of_range(wrong):
    with pytest.raises(UsageError, match="out of range"):
        GateLimits(**wrong)


def test_figures_are_exact():
    base = Figures(size_bytes=1000, nodes=10, parameters=500, load_memory_bytes=100_000_000)
    head = Figures(size_bytes=1001, nodes=10, parameters=400, load_memory_bytes=104_000_000)
    found = {figure.name: figure for figure in judge_figures(base, head, LIMITS)}
    assert {name for name, figure in found.items() if not figure.ok} == {"size_bytes"}
    assert found["parameters"].change == pytest.approx(-0.2)
    assert all(figure.ok for figure in judge_figures(base, head, GateLimits(max_growth=0.01)))
    heavier = Figures(load_memory_bytes=106_000_000)
    assert [figure.ok for figure in judge_figures(base, heavier, LIMITS)] == [False]


def test_memory_of_a_small_model_is_not_told_to_the_page():
    small, larger, large = (Figures(load_memory_bytes=size << 20) for size in (1, 3, 4))
    assert judge_figures(small, larger, LIMITS)[0].ok
    assert not judge_figures(small, large, LIMITS)[0].ok


def test_a_figure_that_one_side_lacks_is_left_out():
    assert judge_figures(Figures(nodes=3), Figures(size_bytes=3), LIMITS) == ()


def test_a_figure_of_nothing():
    assert judge_figures(Figures(nodes=0), Figures(nodes=0), LIMITS)[0].ok
    grown = judge_figures(Figures(nodes=0), Figures(nodes=1), LIMITS)[0]
    assert not grown.ok
    assert math.isinf(grown.change)
