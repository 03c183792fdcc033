"""Goals of the TensorRT suite are judged by the figures, and what is missed or missing says so."""

from dataclasses import replace

import pytest

from bench.measuring.quality import Agreement
from bench.suites.tensorrt.goals import Accuracy, Subject, judge_accuracy, judge_goals, judge_plan
from bench.suites.tensorrt.plans import PlanFacts
from bench.suites.tensorrt.tables import render_tables

PLAN = PlanFacts(
    size_bytes=40_000_000,
    seconds=2.5,
    int8_linears=tuple(f"linear{number}" for number in range(37)),
    float_linears=(),
    joined=6,
    int8_products=0,
    float_products=0,
    half_sums=0,
    float32_sums=25,
    fused_attention=6,
    types={"half": 90, "int8": 40, "float": 27},
)


def make_accuracy(tokens=0.99, texts=0.998):
    return Accuracy(
        tokens=Agreement(mean=tokens, minimum=0.9), texts=Agreement(mean=texts, minimum=0.95), lee=0.5, wordsim=0.73
    )


def list_missed(goals):
    return [goal.name for goal in goals if goal.verdict == "missed"]


@pytest.mark.parametrize(
    ("ours", "missed"),
    [
        (make_accuracy(), []),
        (make_accuracy(tokens=0.984), ["token cosine, mean"]),
        (make_accuracy(texts=0.9969), ["embedding cosine, mean"]),
        (make_accuracy(tokens=0.9), ["token cosine, mean", "token cosine, above every peer's (nearest: ort-linears)"]),
        (
            make_accuracy(texts=0.98),
            ["embedding cosine, mean", "embedding cosine, above every peer's (nearest: modelopt-max)"],
        ),
    ],
)
def test_accuracy_is_judged_by_itself_and_against_the_best_peer_of_each_figure(ours, missed):
    peers = {"ort-linears": make_accuracy(0.95, 0.97), "modelopt-max": make_accuracy(0.93, 0.99)}
    goals = judge_accuracy(ours, peers)
    assert len(goals) == 4
    assert list_missed(goals) == missed


def test_a_model_without_numbers_meets_nothing():
    goals = judge_accuracy(None, {"ort-linears": make_accuracy()})
    assert {(goal.verdict, goal.measured) for goal in goals} == {("missed", "no number")}


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, None),
        ({"int8_linears": PLAN.int8_linears[:35]}, "linears in int8"),
        ({"float_linears": ("pooler",)}, "linears in int8"),
        ({"joined": 5}, "query, key and value joined"),
        ({"types": {"half": 90, "float": 28}}, "FP32 between kernels, but for sums of int8"),
        ({"half_sums": 1}, "sums of int8 stored in FP16, which ends at 65504"),
        ({"size_bytes": 50_000_001}, "size, of the FP32 plan"),
        ({"seconds": 10.0}, "build for four GPUs"),
    ],
)
def test_plan_goals(change, missed):
    assert list_missed(judge_plan(replace(PLAN, **change), 100_000_000)) == ([missed] if missed else [])


def test_what_was_not_measured_is_not_judged():
    names = [goal.name for goal in judge_plan(replace(PLAN, seconds=None), None)]
    assert "size, of the FP32 plan" not in names
    assert "build for four GPUs" not in names
    assert judge_goals({"float": Subject()}) == ()


def test_peers_without_accuracy_are_passed_over_and_their_reason_is_shown():
    subjects = {
        "float": Subject(size_bytes=90_000_000, plan=replace(PLAN, size_bytes=95_000_000, int8_linears=())),
        "stepdown": Subject(size_bytes=35_000_000, seconds=70.0, accuracy=make_accuracy(), plan=PLAN),
        "ort-default": Subject(size_bytes=60_000_000, why=("not judged: the model answers NaN or infinity",)),
    }
    goals = judge_goals(subjects)
    assert list_missed(goals) == []
    assert not any("peer" in goal.name for goal in goals)
    tables = render_tables(subjects, goals)
    assert "ONNX Runtime, default placement, min-max: not judged: the model answers NaN" in tables
    assert "0.9900 / 0.9000" in tables
    assert "0.421" in tables
    assert "37 of 37" in tables
    assert "6 fused" in tables


def test_attention_is_shown_as_it_was_built():
    plans = {"float": {"int8_products": 3, "float_products": 9, "fused_attention": 0}}
    subjects = {key: Subject(plan=replace(PLAN, **change)) for key, change in plans.items()}
    assert "3 of 12 in int8" in render_tables(subjects, ())
