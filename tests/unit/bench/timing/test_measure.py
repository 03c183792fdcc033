"""The scheme, on a clock of our own: no real time is asserted."""

from dataclasses import replace

import pytest

from bench.timing.measure import Clock, MeasurePlan, measure_interleaved
from runtimes.errors import UsageError


class World:
    """A clock that moves only when a subject runs or somebody sleeps, and writes down what happened."""

    def __init__(self):
        self.ns = 0
        self.events = []

    @property
    def clock(self):
        return Clock(now_ns=lambda: self.ns, sleep=self.sleep)

    def sleep(self, seconds):
        self.events.append("pause")
        self.ns += int(seconds * 1e9)

    def subject(self, name, cost):
        def run():
            self.events.append(name)
            self.ns += cost(self.ns) if callable(cost) else cost

        return run


def measure(world, costs, plan, **options):
    subjects = {name: world.subject(name, cost) for name, cost in costs.items()}
    return measure_interleaved(subjects, plan, clock=world.clock, machine={"cpu": "test"}, **options)


def blocks_of(events):
    """Split what happened after the warm-up into (subject, number of calls) per block."""
    found = []
    for event in events[events.index("pause") :]:
        if event == "pause":
            found.append([])
        else:
            found[-1].append(event)
    assert all(len(set(block)) == 1 for block in found), "a block holds one subject"
    return [(block[0], len(block)) for block in found]


PLAN = MeasurePlan(blocks=8, block_seconds=0.1, min_runs=3, max_runs=30, pause_s=0.03, discard=2, seed=7)
MS = 1_000_000


def test_durations_are_those_of_the_subjects():
    samples = measure(World(), {"a": 10 * MS, "b": 20 * MS}, PLAN)
    assert {run for block in samples["a"].ns for run in block} == {10 * MS}
    assert samples["b"].median_ns() == 20 * MS
    assert samples["a"].label == "a"
    assert samples["a"].machine == {"cpu": "test"}


def test_each_round_has_one_block_of_each_in_changing_order():
    world = World()
    measure(world, {"a": 10 * MS, "b": 20 * MS, "c": 5 * MS}, PLAN)
    order = [name for name, _ in blocks_of(world.events)]
    rounds = [tuple(order[at : at + 3]) for at in range(0, len(order), 3)]
    assert len(rounds) == 8
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 2


def test_blocks_begin_with_a_pause_and_two_runs_that_do_not_count():
    world = World()
    samples = measure(world, {"a": 10 * MS}, PLAN)
    assert blocks_of(world.events) == [("a", 2 + 10)] * 8
    assert [len(block) for block in samples["a"].ns] == [10] * 8


def test_a_slow_first_run_after_a_pause_is_discarded():
    world = World()

    def cold(_now):
        return (90 if world.events[-2:-1] == ["pause"] else 10) * MS

    samples = measure(world, {"a": cold}, PLAN)
    assert {run for block in samples["a"].ns for run in block} == {10 * MS}


def test_runs_of_a_block_follow_the_speed_within_limits():
    samples = measure(World(), {"fast": MS, "middle": 20 * MS, "slow": 900 * MS}, PLAN)
    assert [len(samples[name].ns[0]) for name in ("fast", "middle", "slow")] == [30, 5, 3]


def test_warm_up_goes_on_until_stable_and_is_kept_apart():
    world = World()
    cost = iter([80, 70, 60, 50, 40, 30, 20] + [10] * 10_000)
    samples = measure(world, {"a": lambda _now: next(cost) * MS}, PLAN)
    assert samples["a"].warmup_ns[:3] == (80 * MS, 70 * MS, 60 * MS)
    assert samples["a"].warmup_ns[-5:] == (10 * MS,) * 5
    assert {run for block in samples["a"].ns for run in block} == {10 * MS}


def test_a_restless_subject_ends_its_warm_up_by_time_and_a_slow_one_after_three_runs():
    growing = iter(range(1, 10_000))
    samples = measure(World(), {"a": lambda _now: next(growing) * 10 * MS, "slow": 5000 * MS}, PLAN)
    assert sum(samples["a"].warmup_ns) < 2 * PLAN.warmup_seconds * 1e9
    assert len(samples["slow"].warmup_ns) == 3
    once = measure(World(), {"slow": 5000 * MS}, replace(PLAN, min_warmup=1))
    assert len(once["slow"].warmup_ns) == 1


def test_same_seed_same_order_other_seed_other_order():
    def order(seed):
        world = World()
        measure(world, {"a": MS, "b": MS, "c": MS}, MeasurePlan(blocks=6, seed=seed, max_runs=3))
        return [name for name, _ in blocks_of(world.events)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_enough_ends_after_a_whole_round():
    asked = []

    def is_enough(samples):
        asked.append({name: len(one.ns) for name, one in samples.items()})
        return len(asked) == 3

    samples = measure(World(), {"a": MS, "b": MS}, PLAN, is_enough=is_enough)
    assert asked == [{"a": n, "b": n} for n in (1, 2, 3)]
    assert len(samples["a"].ns) == len(samples["b"].ns) == 3


def test_time_budget_ends_after_a_whole_round_and_one_is_always_made():
    short = MeasurePlan(blocks=50, time_budget_s=1e-9)
    assert len(measure(World(), {"a": MS, "b": MS}, short)["b"].ns) == 1
    some = MeasurePlan(blocks=50, block_seconds=0.1, time_budget_s=2.0)
    done = measure(World(), {"a": 10 * MS, "b": 10 * MS}, some)
    assert 1 < len(done["a"].ns) == len(done["b"].ns) < 50


def test_rounds_are_reported():
    told = []
    measure(World(), {"a": MS}, PLAN, on_round=lambda done, planned: told.append((done, planned)))
    assert told == [(n, 8) for n in range(1, 9)]


def test_a_clock_too_coarse_for_the_subject_gives_one_nanosecond():
    assert {run for block in measure(World(), {"a": 0}, PLAN)["a"].ns for run in block} == {1}


def test_failures_pass_through():
    def fail():
        raise ValueError("the subject broke")

    with pytest.raises(ValueError, match="the subject broke"):
        measure_interleaved({"a": fail}, PLAN, clock=World().clock, machine={})


def test_nothing_to_measure_is_refused():
    with pytest.raises(UsageError, match="nothing to measure"):
        measure_interleaved({}, PLAN)
    for wrong in ({"blocks": 0}, {"min_warmup": 0}, {"min_runs": 0}, {"min_runs": 5, "max_runs": 4}):
        with pytest.raises(UsageError, match="measures nothing"):
            MeasurePlan(**wrong)


def test_the_real_clock_and_machine_are_the_default():
    samples = measure_interleaved({"a": lambda: None}, MeasurePlan(blocks=1, pause_s=0, max_runs=3))
    assert samples["a"].machine["cores"] >= 1
    assert all(run > 0 for run in samples["a"].ns[0])
