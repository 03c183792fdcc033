"""Parity: every metric, NaN, shapes, and messages that name the output and the worst position."""

import math

import numpy as np
import pytest

from runtimes.errors import ParityFailure
from runtimes.parity import Tolerance, compare, cosine, require

EXACT = Tolerance(atol=0.0, rtol=0.0, reason="the test wants equality")
LOOSE = Tolerance(atol=1e-3, rtol=0.0, reason="float32 round-off")


def only(report):
    assert len(report.outputs) == 1
    return report.outputs[0]


def test_equal_arrays_pass_exactly():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    row = only(report := compare({"y": x}, {"y": x.copy()}, EXACT))
    assert report.verdict == "pass"
    assert (row.max_abs, row.mean_abs, row.cosine, row.top1) == (0.0, 0.0, 1.0, 1.0)
    assert row.sqnr_db == math.inf
    require(report)


def test_metrics_are_those_of_their_definitions():
    want = np.array([[3.0, 4.0], [0.0, 1.0]])
    got = np.array([[3.0, 4.0], [2.0, 1.0]])
    row = only(compare({"y": want}, {"y": got}, LOOSE))
    assert row.max_abs == 2.0
    assert row.mean_abs == 0.5
    assert row.top1 == 0.5
    assert row.sqnr_db == pytest.approx(10 * math.log10(26 / 4))
    assert row.cosine == pytest.approx(26 / math.sqrt(26 * 30))
    assert (row.worst, row.expected, row.actual) == ((1, 0), 0.0, 2.0)


def test_failure_names_output_and_worst_position():
    want = np.zeros((2, 3, 4), np.float32)
    got = want.copy()
    got[1, 2, 3] = 0.5
    report = compare({"hidden": want}, {"hidden": got}, LOOSE)
    assert report.verdict == "fail"
    with pytest.raises(ParityFailure, match=r"'hidden'.*1 of 24.*\(1, 2, 3\): expected 0, got 0.5") as caught:
        require(report)
    assert caught.value.exit_code == 5
    assert "float32 round-off" in str(caught.value)


def test_worst_position_is_relative_to_its_own_bound():
    tolerance = Tolerance(atol=0.0, rtol=0.1, reason="relative")
    row = only(compare({"y": np.array([100.0, 1.0])}, {"y": np.array([109.0, 2.0])}, tolerance))
    assert row.verdict == "fail"
    assert row.worst == (1,)
    assert row.max_abs == 9.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_on_one_side_fails_whatever_the_tolerance(value):
    want, got = np.ones(4), np.ones(4)
    got[2] = value
    row = only(report := compare({"y": want}, {"y": got}, Tolerance(atol=1e9, rtol=1e9, reason="none")))
    assert report.verdict == "fail"
    assert row.worst == (2,)
    assert row.non_finite == 1
    assert "NaN or infinity at 1 of 4" in report.message
    assert math.isfinite(row.max_abs)
    assert math.isfinite(row.cosine)


def test_non_finite_alike_on_both_sides_is_equal():
    x = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert compare({"y": x}, {"y": x.copy()}, EXACT).verdict == "pass"
    assert compare({"y": np.array([np.inf])}, {"y": np.array([-np.inf])}, EXACT).verdict == "fail"


def test_all_nan_on_both_sides_has_defined_metrics():
    x = np.full(3, np.nan)
    row = only(compare({"y": x}, {"y": x}, EXACT))
    assert row.mean_abs == 0.0
    assert row.verdict == "pass"


def test_missing_extra_and_reshaped_outputs_are_all_named():
    report = compare({"a": np.zeros(2), "b": np.zeros((2, 3))}, {"b": np.zeros((3, 2)), "c": np.zeros(1)}, LOOSE)
    assert report.verdict == "fail"
    assert "'a' is missing; there are: b, c" in report.message
    assert "'b' has shape (3, 2), expected (2, 3)" in report.message
    assert "'c' is not in the reference" in report.message


def test_no_outputs_is_not_a_pass():
    assert compare({}, {}, LOOSE).verdict == "fail"


def test_min_cosine_fails_on_its_own():
    tolerance = Tolerance(atol=10.0, rtol=0.0, min_cosine=0.9, reason="int8")
    report = compare({"y": np.array([1.0, 0.0])}, {"y": np.array([0.0, 1.0])}, tolerance)
    assert report.verdict == "fail"
    assert "cosine 0.000000, below 0.9" in report.message
    assert compare({"y": np.array([1.0, 0.0])}, {"y": np.array([1.0, 0.1])}, tolerance).verdict == "pass"


def test_empty_scalar_boolean_and_integer_outputs():
    assert compare({"y": np.zeros((0, 3))}, {"y": np.zeros((0, 3))}, EXACT).verdict == "pass"
    row = only(compare({"y": np.float32(2)}, {"y": np.float32(2)}, EXACT))
    assert row.worst == ()
    assert compare({"y": np.array([True])}, {"y": np.array([False])}, EXACT).verdict == "fail"
    big = np.array([2**40], np.int64)
    assert compare({"y": big}, {"y": big + 1}, EXACT).verdict == "fail"


def test_metrics_are_float64_even_for_half_inputs():
    want = np.full(4, 60000, np.float16)
    row = only(compare({"y": want}, {"y": np.negative(want)}, LOOSE))
    assert row.max_abs == 120000.0
    assert row.cosine == -1.0


def test_cosine_survives_extreme_magnitudes_and_zeros():
    huge = np.full(8, 1e300)
    assert cosine(huge, huge) == pytest.approx(1.0)
    assert cosine(huge * 1e-320, huge) == pytest.approx(1.0)
    assert cosine(np.zeros(3), np.zeros(3)) == 1.0
    assert cosine(np.zeros(3), np.ones(3)) == 0.0
