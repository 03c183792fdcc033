"""Numbers as people read them."""

import math

import pytest

from bench.report.units import (
    MISSING,
    choose_time_unit,
    format_bound,
    format_bytes,
    format_change,
    format_count,
    format_duration,
    format_ratio,
    format_share,
    make_printable,
)


@pytest.mark.parametrize(
    ("ns", "text"),
    [(950, "0.9 µs"), (42_300, "42.3 µs"), (830_000, "0.830 ms"), (5_214_000, "5.21 ms"), (2.5e9, "2.50 s")],
)
def test_durations(ns, text):
    assert format_duration(ns) == text


def test_a_column_keeps_one_unit():
    unit = choose_time_unit(830_000)
    assert [unit.format(ns) for ns in (830_000, 112_400_000)] == ["0.830", "112.400"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(-12_288, "-12.3 kB"), (12, "12 B"), (1500, "1.5 kB"), (23_100_000, "23.1 MB"), (2_310_000_000, "2.31 GB")],
)
def test_sizes(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(312, "312"), (5678, "5\u202f678"), (22.7e6, "22.7 M"), (7.24e9, "7.24 G")]
)
def test_counts(count, text):
    assert format_count(count) == text


def test_ratios_and_open_bounds():
    assert format_ratio(2.314) == "2.31\N{MULTIPLICATION SIGN}"
    assert format_ratio(math.inf) == MISSING
    assert format_bound(0.981, 1.0049) == "0.98 … 1.00"
    assert format_bound(0.0, math.inf) == f"{MISSING} … {MISSING}"


def test_a_small_share_is_not_nothing():
    found = [format_share(share) for share in (0.0, 0.001, 0.006, 0.994)]
    assert found == [f"{text}\u202f%" for text in ("0", "<1", "1", "99")]
    assert format_share(0.0003, 1) == "<0.1\u202f%"


def test_changes_have_a_sign():
    assert [format_change(share) for share in (0.0192, -0.25, 0.0)] == [
        "+1.9\u202f%",
        "\N{MINUS SIGN}25.0\u202f%",
        "0.0\u202f%",
    ]


def test_what_cannot_be_drawn_is_replaced_and_both_ends_are_kept():
    assert make_printable("a\x00b\u202ec\ud800\n") == "a�b�c��"
    assert make_printable("out/one/model.onnx", 10) == "out/….onnx"
    assert make_printable("exactly-10", 10) == "exactly-10"
