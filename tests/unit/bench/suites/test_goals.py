"""Goals are judged by the figures, and what is missed says so."""

import pytest

from bench.measuring.quality import Agreement
from bench.suites.goals import Quality, judge_cost, judge_quality, judge_speed
from bench.timing.compare import Comparison


def ratio(value):
    return Comparison(ratio=value, low=value * 0.98, high=value * 1.02, rounds=15, verdict="faster")


def test_speed_goals_by_shape_and_nearest_peer():
    goals = judge_speed({"1x128": {"ort-fp32": ratio(1.9), "dynamic": ratio(1.1), "torch": ratio(3.0)}})
    assert [(goal.name, goal.verdict) for goal in goals] == [
        ("speed against dynamic at 1x128", "missed"),
        ("speed against ort-fp32 at 1x128", "met"),
        ("faster than every peer at 1x128 (nearest: dynamic)", "met"),
    ]
    assert goals[0].wanted == ">= 1.20"
    assert goals[0].measured == "1.10 [1.08, 1.12]"


def test_a_shape_without_figures_of_its_own_is_judged_against_every_peer():
    (goal,) = judge_speed({"32x64": {"ort-fp32": ratio(0.99), "torch": ratio(1.5)}})
    assert goal.verdict == "missed"
    assert "nearest: ort-fp32" in goal.name


def test_bfloat16_is_judged_apart_and_hides_nothing():
    goals = judge_speed({"32x64": {"openvino-default": ratio(0.5), "torch": ratio(1.5)}})
    assert [(goal.name, goal.verdict) for goal in goals] == [
        ("faster than every peer at 32x64 (nearest: torch)", "met"),
        ("speed against openvino-default at 32x64", "missed"),
    ]


FLOAT = Quality(agreement=Agreement(mean=1.0, minimum=1.0), lee=0.5, wordsim=0.73)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, set()),
        ({"agreement": Agreement(mean=0.992, minimum=0.989)}, {"embedding cosine, mean"}),
        ({"agreement": Agreement(mean=0.999, minimum=0.9)}, {"embedding cosine, minimum"}),
        ({"lee": 0.489}, {"Lee Spearman"}),
        ({"wordsim": 0.71}, {"wordsim353 Spearman"}),
    ],
)
def test_quality_goals(change, missed):
    figures = {"agreement": Agreement(mean=0.995, minimum=0.99), "lee": 0.491, "wordsim": 0.7201} | change
    goals = judge_quality(Quality(**figures), FLOAT, 23_400_000)
    assert {goal.name for goal in goals if goal.verdict == "missed"} == missed


def test_size_goal():
    goals = judge_quality(FLOAT, FLOAT, 23_600_000)
    assert [goal.name for goal in goals if goal.verdict == "missed"] == ["size on disk"]


def test_a_ratio_whose_bound_does_not_reach_the_goal_is_unsure():
    goals = judge_speed({"1x128": {"ort-fp32": ratio(1.81), "dynamic": ratio(1.01)}})
    assert [goal.verdict for goal in goals] == ["missed", "unsure", "unsure"]


def test_cost_goals_judge_what_was_measured():
    assert judge_cost(None, {}) == ()
    export, calibration = judge_cost(91.0, {"onnxruntime percentile": 11.2, "stepdown": 4.0})
    assert (export.verdict, export.wanted) == ("missed", "<= 90.0 s")
    assert (calibration.verdict, calibration.measured) == ("met", "4.0 s")
