"""What /proc/stat says, summed over the processors in use."""

import pytest

from bench.machine.processor_time import ProcessorTime, parse_stat, read_processor_time

STAT = """cpu  300 0 60 800 10 0 0 30 0 0
cpu0 100 0 20 400 5 0 0 10 0 0
cpu1 200 0 40 400 5 0 0 20 0 0
cpu10 999 999 999 999 999 999 999 999 0 0
intr 1 2 3
"""


def test_only_the_processors_in_use_count():
    one = parse_stat(STAT, {1}, ticks_per_s=100, own_s=1.0)
    both = parse_stat(STAT, {0, 1}, ticks_per_s=100, own_s=1.0)
    assert one == ProcessorTime(busy_s=2.4, stolen_s=0.2, total_s=6.65, own_s=1.0)
    assert both == ProcessorTime(busy_s=3.6, stolen_s=0.3, total_s=12.0, own_s=1.0)
    assert both.steal_share() == pytest.approx(0.025)


def test_what_others_ran_is_what_is_left_of_the_busy_time():
    before = ProcessorTime(busy_s=10, stolen_s=1, total_s=100, own_s=4)
    after = ProcessorTime(busy_s=18, stolen_s=2, total_s=120, own_s=10)
    passed = after.since(before)
    assert passed.other_share() == pytest.approx(2 / 20)
    assert passed.steal_share() == pytest.approx(1 / 20)


def test_rounding_of_ticks_never_gives_a_negative_share():
    assert ProcessorTime(busy_s=1.0, stolen_s=0, total_s=2.0, own_s=1.01).other_share() == 0.0
    assert ProcessorTime(busy_s=0, stolen_s=0, total_s=0, own_s=0).steal_share() == 0.0


def test_no_processor_in_use_is_listed():
    assert parse_stat(STAT, {7}, ticks_per_s=100, own_s=0.0) is None


def test_this_system_tells_or_says_nothing():
    found = read_processor_time()
    assert found is None or found.total_s > 0
