import dataclasses
import json

import numpy as np
import pytest

from calibration.linears import Linear
from calibration.plan import make_static_plan, quantise_planned_weight
from calibration.quantise import fake_quantise, make_grid
from calibration.search import METHODS
from calibration.statistics import CalibrationStatistics
from calibration.tensor_statistics import TensorStatistics
from runtimes.errors import DataError, UnsupportedModel, UsageError

RANDOM = np.random.default_rng(0)
#: A few channels a hundred times larger than the rest: what smoothing is for.
SPREAD = np.where(np.arange(32) % 8 == 0, 100, 1).astype(np.float32)
ROWS = (RANDOM.normal(0.3, 1, (600, 32)) * SPREAD).astype(np.float32)
WEIGHTS = {
    "q": RANDOM.normal(size=(32, 8)).astype(np.float32),
    "k": RANDOM.normal(size=(8, 32)).astype(np.float32),
    "c": RANDOM.normal(size=(5, 4, 3, 3)).astype(np.float32),
}
Q = Linear(node="nq", kind="MatMul", activation="x", weight="q", shape=(32, 8), bias=None, transposed=False)
K = Linear(node="nk", kind="Gemm", activation="x", weight="k", shape=(32, 8), bias="b", transposed=True)
CONV = Linear(node="nc", kind="Conv", activation="p", weight="c", shape=(36, 5), bias=None, transposed=True)


def gather(**tensors):
    found = {}
    for name, rows in tensors.items():
        identities = np.arange(len(rows), dtype=np.uint64)
        found[name] = TensorStatistics.empty(rows.shape[1], capacity=256).update(rows, identities)
    return CalibrationStatistics(
        model_sha256="m", dataset_sha256="d", shard_count=1, shards=(0,), samples=1, tensors=found
    )


STATISTICS = gather(x=ROWS, p=ROWS[:, 1:5])


def run_plan(plan, rows):
    """Outputs of Q and K as the quantised graph would compute them, and the float ones."""
    (group,) = plan.groups
    grid = make_grid(group.bits, symmetric=group.dtype == "int8")
    smooth = np.ones(32, np.float32) if group.smooth is None else group.smooth
    quantised = fake_quantise(rows / smooth, group.scale, group.zero_point, grid)
    for linear, part in zip((Q, K), plan.linears, strict=True):
        integers = quantise_planned_weight(part, linear, WEIGHTS[linear.weight], group.smooth)
        assert integers.dtype == np.int8
        assert integers.shape == WEIGHTS[linear.weight].shape
        matrix = integers.T if linear.transposed else integers
        weight = WEIGHTS[linear.weight].T if linear.transposed else WEIGHTS[linear.weight]
        delta = 0 if part.bias_delta is None else part.bias_delta
        yield quantised @ (matrix * part.weight_scale) + delta, rows @ weight


FRESH = (np.random.default_rng(1).normal(0.3, 1, (500, 32)) * SPREAD).astype(np.float32)


def measure(plan, rows=FRESH):
    return [float(np.square(got - want).sum() / np.square(want).sum()) for got, want in run_plan(plan, rows)]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("weight_bits", [7, 8])
def test_auto_is_better_than_plain_minmax_on_fresh_rows(symmetric, weight_bits):
    auto = make_static_plan([Q, K], WEIGHTS, STATISTICS, symmetric=symmetric, weight_bits=weight_bits)
    plain = make_static_plan(
        [Q, K],
        WEIGHTS,
        STATISTICS,
        method="minmax",
        smooth=False,
        bias_correction=False,
        symmetric=symmetric,
        weight_bits=weight_bits,
    )
    assert max(measure(auto)) < 1e-3
    assert sum(measure(auto)) <= sum(measure(plain))
    assert auto.groups[0].linears == ("nq", "nk")


def test_the_reported_error_is_what_all_rows_show():
    plan = make_static_plan([Q, K], WEIGHTS, STATISTICS)
    for part, measured in zip(plan.linears, measure(plan, ROWS), strict=True):
        assert part.error == pytest.approx(measured, rel=0.5)


def test_smoothing_wins_where_small_channels_matter():
    weights = {**WEIGHTS, "q": (WEIGHTS["q"] / SPREAD[:, None]).astype(np.float32)}
    plan = make_static_plan([Q], weights, STATISTICS)
    assert plan.groups[0].smooth is not None
    assert plan.groups[0].method.startswith("SmoothQuant")
    without = make_static_plan([Q], weights, STATISTICS, smooth=False)
    assert without.groups[0].smooth is None
    assert plan.groups[0].error < 0.5 * without.groups[0].error


@pytest.mark.parametrize("levels", [(-1, 1), (-8, 7)])
def test_weights_of_few_levels_are_not_smoothed_and_stay_what_they_are(levels):
    scales = RANDOM.uniform(0.05, 0.1, 8).astype(np.float32)
    few = (RANDOM.integers(levels[0], levels[1] + 1, (32, 8)) * scales).astype(np.float32)
    plan = make_static_plan([Q], {"q": few}, STATISTICS)
    assert plan.groups[0].smooth is None
    integers = quantise_planned_weight(plan.linears[0], Q, few, None)
    step = np.abs(few).max(axis=0) / 127
    assert np.abs(integers * plan.linears[0].weight_scale - few).max() <= 0.51 * step.max()


def test_one_even_channel_spread_needs_no_smoothing():
    rows = np.random.default_rng(2).uniform(-1, 1, (600, 32)).astype(np.float32)
    plan = make_static_plan([Q], WEIGHTS, gather(x=rows))
    assert plan.groups[0].smooth is None
    assert plan.groups[0].method == "minmax"
    assert plan.groups[0].scale == pytest.approx(1 / 127, rel=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_usable_plan(method):
    plan = make_static_plan([Q, K], WEIGHTS, STATISTICS, method=method)
    assert max(measure(plan)) < 0.05
    assert method == "auto" or method in plan.groups[0].method


def test_asymmetric_activations_have_a_zero_point():
    rows = np.abs(ROWS) - np.float32(0.1)
    plan = make_static_plan([Q], WEIGHTS, gather(x=rows), symmetric=False, smooth=False)
    group = plan.groups[0]
    assert group.dtype == "uint8"
    assert 0 <= group.zero_point < 16


def test_a_conv_over_a_window_keeps_its_range_and_needs_no_outputs():
    plan = make_static_plan([CONV], WEIGHTS, STATISTICS)
    assert plan.groups[0].smooth is None
    assert plan.linears[0].bias_delta is None
    assert plan.linears[0].weight_scale.shape == (5,)
    assert plan.groups[0].error < 1e-2
    assert quantise_planned_weight(plan.linears[0], CONV, WEIGHTS["c"], None).shape == (5, 4, 3, 3)


def test_what_a_conv_reads_too_tells_nothing_of_a_product():
    """As many channels as the product has inputs, and along another axis."""
    point = Linear(node="np", kind="Conv", activation="x", weight="c1", shape=(32, 5), bias=None, transposed=True)
    weights = {**WEIGHTS, "c1": RANDOM.normal(size=(5, 32, 1)).astype(np.float32)}
    plan = make_static_plan([point, Q], weights, STATISTICS)
    assert plan.groups[0].smooth is None
    assert [part.bias_delta for part in plan.linears] == [None, None]
    assert make_static_plan([point], weights, STATISTICS).groups[0].smooth is not None


def test_a_dead_activation_is_said_to_be_dead():
    plan = make_static_plan([Q], WEIGHTS, gather(x=np.zeros((50, 32), np.float32)))
    assert plan.groups[0].method == "dead"
    assert "zero throughout" in plan.groups[0].why
    assert plan.groups[0].scale == 1


def test_a_plan_is_plain_data_and_deterministic():
    plans = [make_static_plan([Q, K, CONV], WEIGHTS, STATISTICS).to_json() for _ in range(2)]
    texts = [json.dumps(plan, sort_keys=True) for plan in plans]
    assert texts[0] == texts[1]
    assert [linear["node"] for linear in plans[0]["linears"]] == ["nq", "nk", "nc"]


def test_an_unknown_method_is_a_usage_error():
    with pytest.raises(UsageError, match="minmax"):
        make_static_plan([Q], WEIGHTS, STATISTICS, method="median")


def test_statistics_of_another_model_are_named():
    with pytest.raises(DataError, match=r"no statistics of 'x'.*nq"):
        make_static_plan([Q], WEIGHTS, gather(y=ROWS))


def test_a_missing_shard_is_named():
    partial = dataclasses.replace(STATISTICS, shard_count=2)
    with pytest.raises(DataError, match="missing shard 1/2"):
        make_static_plan([Q], WEIGHTS, partial)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_weight_is_named(value):
    broken = WEIGHTS["q"].copy()
    broken[3, 3] = value
    with pytest.raises(UnsupportedModel, match="nq:q"):
        make_static_plan([Q], {**WEIGHTS, "q": broken}, STATISTICS)


def test_a_weight_shared_by_two_layers_is_stored_once():
    second = dataclasses.replace(Q, node="nq2", activation="x2")
    plan = make_static_plan([Q, second], WEIGHTS, gather(x=ROWS, x2=ROWS[::-1] ** 2))
    assert [group.smooth for group in plan.groups] == [None, None]
    first, other = (quantise_planned_weight(part, Q, WEIGHTS["q"], None) for part in plan.linears)
    np.testing.assert_array_equal(first, other)


def test_a_grouped_conv_is_no_matrix_though_its_window_is_as_large_as_its_channels():
    depthwise = dataclasses.replace(CONV, weight="d", shape=(4, 4))
    weights = {"d": RANDOM.normal(size=(4, 1, 2, 2)).astype(np.float32)}
    (group,) = make_static_plan([depthwise], weights, STATISTICS).groups
    assert group.smooth is None
    assert "activation error" in group.why
