"""When a run is called unstable, and what is said then."""

import pytest

from bench.machine.processor_time import ProcessorTime
from bench.measuring.conditions import Watch, describe_conditions, watch_machine
from bench.recordings.recording import Timing
from runtimes.errors import MissingDependency


def time_of(busy=0.0, stolen=0.0, total=0.0, own=0.0):
    return ProcessorTime(busy_s=busy, stolen_s=stolen, total_s=total, own_s=own)


def timing(medians, label="a", shape="1x8"):
    return Timing(label=label, shape=shape, ns=tuple((value, value, value) for value in medians))


QUIET = timing([1000, 1010, 1005, 995, 1000, 1008, 1001, 999, 1003])


def test_a_quiet_run_says_nothing():
    watch = Watch(before=time_of(), after=time_of(busy=10, total=20, own=9.9), probe_gflops=(100.0, 104.0))
    conditions = describe_conditions(watch, [QUIET])
    assert conditions.unstable == ()
    assert (conditions.steal_share, conditions.busy_share) == (0.0, pytest.approx(0.005))
    assert conditions.probe_gflops == (100.0, 104.0)


@pytest.mark.parametrize(
    ("watch", "said", "cure"),
    [
        (Watch(before=time_of(), after=time_of(stolen=1, total=20)), "took away 5%", "another time"),
        (Watch(before=time_of(), after=time_of(busy=10, own=8, total=20)), "other processes used 10%", "--affinity"),
        (Watch(probe_gflops=(100.0, 60.0)), "from 100 to 60 GFLOP/s", "measure again"),
    ],
)
def test_each_disturbance_is_named_with_its_cure(watch, said, cure):
    (sentence,) = describe_conditions(watch, [QUIET]).unstable
    assert said in sentence
    assert cure in sentence


def test_scattered_block_medians_name_the_worst_subject():
    wild = timing([1000, 1500, 900, 1600, 1000, 1500, 950, 1450, 1000], label="wild")
    (sentence,) = describe_conditions(Watch(), [QUIET, wild]).unstable
    assert "wild at 1x8" in sentence
    assert "--time-budget" in sentence


def test_a_drift_that_all_share_is_told_from_scatter():
    slowing = [1000, 1000, 1000, 1060, 1060, 1060, 1120, 1120, 1120]
    both = [timing(slowing), timing([value * 3 for value in slowing], label="b")]
    (sentence,) = describe_conditions(Watch(), both).unstable
    assert "12% slower" in sentence
    assert describe_conditions(Watch(), [timing([2000 - value for value in slowing])]).unstable[0].count("faster") == 1


def test_few_rounds_have_no_drift_and_no_spread():
    assert describe_conditions(Watch(), [timing([1000, 3000])]).unstable == ()
    assert describe_conditions(Watch(), []).unstable == ()


def test_watching_reads_before_and_after():
    speeds = iter([50.0, 48.0])
    with watch_machine(2, probe=lambda _: next(speeds)) as watch:
        assert watch.after is None
    assert watch.probe_gflops == (50.0, 48.0)
    assert (watch.before is None) == (watch.after is None)


def test_a_machine_without_the_probe_is_measured_all_the_same():
    def missing(_threads):
        raise MissingDependency("no onnxruntime")

    with watch_machine(probe=missing) as watch:
        pass
    assert describe_conditions(watch, [QUIET]).probe_gflops == ()


def test_gpu_readings_are_kept_from_both_ends_and_the_busiest_between():
    readings = [
        {"sm_clock_mhz": clock, "busy_percent": busy, "held_back_by": held}
        for clock, busy, held in ((1980, 80, []), (1900, 85, []), (1700, 99, ["power limit"]), (1975, 80, []))
    ]
    conditions = describe_conditions(Watch(gpu=readings), [QUIET])
    assert [reading["sm_clock_mhz"] for reading in conditions.gpu] == [1980, 1700, 1975]
    assert any("power limit" in sentence for sentence in conditions.unstable)
    assert any("between 1700 and 1980 MHz" in sentence for sentence in conditions.unstable)
