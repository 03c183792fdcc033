import json
import statistics
import subprocess
import sys

import pytest

from bench.peers.latency_gates import RULES, alarm_on_block_medians, alarm_on_mean, alarm_on_tested_mean

MS = 1_000_000
BASE = [5 * MS + 1000 * (number % 7) for number in range(200)]


def slow_down(runs, share):
    return [round(run * (1 + share)) for run in runs]


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
@pytest.mark.parametrize(("share", "alarm"), [(0.0, False), (0.04, False), (0.06, True), (-0.2, False)])
def test_every_rule_alarms_above_five_per_cent_alone(rule, share, alarm):
    assert rule(BASE, slow_down(BASE, share)) is alarm


def test_a_few_long_runs_move_the_mean_and_not_the_median():
    head = [*BASE[:-4], *(25 * MS for _ in range(4))]
    assert alarm_on_mean(BASE, head)
    assert not alarm_on_block_medians(BASE, head)


def test_a_slow_phase_moves_the_medians_too():
    """What no sequential rule can tell from a slower model."""
    head = [*slow_down(BASE[:120], 0.1), *BASE[120:]]
    assert alarm_on_block_medians(BASE, head)


def test_a_mean_that_one_run_moved_is_no_difference_to_the_test():
    head = [*BASE[:-1], 70 * MS]
    assert alarm_on_mean(BASE, head)
    assert not alarm_on_tested_mean(BASE, head)


def test_runs_after_the_last_whole_block_are_left_out():
    assert not alarm_on_block_medians(BASE[:60], [*BASE[:60], *(50 * MS for _ in range(29))])
    with pytest.raises(statistics.StatisticsError):
        alarm_on_block_medians(BASE[:29], BASE[:29])


SUITE = """
import itertools, time
import pytest

SECONDS = itertools.cycle({seconds})

def test_it(benchmark):
    benchmark.pedantic(lambda: time.sleep(next(SECONDS)), rounds=12)
"""


def run_pytest_benchmark(folder, seconds, *options):
    """Run the real plugin on a function that takes so long, time after time; return its exit code and raw runs."""
    (folder / "test_it.py").write_text(SUITE.format(seconds=seconds))
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(
        [*command, "--benchmark-save=it", "--benchmark-save-data"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    saved = sorted(folder.glob(".benchmarks/*/*_it.json"))[-1]
    (benchmark,) = json.loads(saved.read_text())["benchmarks"]
    return done, [round(second * 1e9) for second in benchmark["stats"]["data"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "alarm"),
    [
        ([0.002], None),
        ([0.004], True),
        # One long run in twelve: only a mean rule alarms.
        ([0.002] * 11 + [0.05], True),
        ([0.0005], False),
    ],
    ids=["same", "slower", "one long run", "faster"],
)
def test_the_real_pytest_benchmark_follows_the_mean_rule(tmp_path, seconds, alarm):
    pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark (dev extra)")
    _, base = run_pytest_benchmark(tmp_path, [0.002])
    done, head = run_pytest_benchmark(tmp_path, seconds, "--benchmark-compare", "--benchmark-compare-fail=mean:5%")
    failed = "Performance has regressed" in done.stdout + done.stderr
    assert failed == (done.returncode != 0), done.stdout + done.stderr
    assert failed is alarm_on_mean(base, head)
    if alarm is not None:
        assert failed is alarm
