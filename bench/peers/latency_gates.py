"""What other tools would say to the same two models: their rules, on raw runs of one model and then of the other.

In: nanoseconds of sequential runs of base and of head. Out: alarm or not, for a limit of 5 %. Pure functions, so that
every rule judges the very same runs. Must not import a runtime.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

Runs = Sequence[int]
Rule = Callable[[Runs, Runs], bool]

_LIMIT_PERCENT = 5
_BLOCK_RUNS = 30
# What hyperfine's script calls a difference.
_SIGNIFICANCE = 0.05


def alarm_on_mean(base: Runs, head: Runs) -> bool:
    """``pytest --benchmark-compare-fail=mean:5%``.

    Fails when ``current.mean / compared.mean * 100 - 100`` exceeds 5 (pytest-benchmark 5.3.1, ``utils.py``,
    ``PercentageRegressionCheck``): all rounds, none left out, no bound.
    """
    return statistics.fmean(head) / statistics.fmean(base) * 100 - 100 > _LIMIT_PERCENT


def alarm_on_tested_mean(base: Runs, head: Runs) -> bool:
    """Hyperfine's ratio of means above 1.05, where its test also finds a difference.

    hyperfine compares the means of one command's runs after the other's (``src/benchmark/relative_speed.rs``) and has
    no gate; ``scripts/welch_ttest.py`` beside it tells by Welch's t-test (1947), p below 0.05, whether they differ.
    """
    from scipy.stats import ttest_ind

    if not alarm_on_mean(base, head):
        return False
    return bool(ttest_ind(base, head, equal_var=False).pvalue < _SIGNIFICANCE)


def alarm_on_block_medians(base: Runs, head: Runs) -> bool:
    """Median over the medians of successive blocks of 30 runs, head more than 5 % above base.

    What is left over after the last whole block is left out.

    Raises:
        statistics.StatisticsError: there is not one whole block.
    """
    return _median_of_blocks(head) / _median_of_blocks(base) * 100 - 100 > _LIMIT_PERCENT


RULES: Mapping[str, Rule] = {
    "pytest-benchmark, mean:5%": alarm_on_mean,
    "hyperfine, means and t-test": alarm_on_tested_mean,
    "medians of blocks of 30, in sequence": alarm_on_block_medians,
}


def _median_of_blocks(runs: Runs) -> float:
    starts = range(0, len(runs) - _BLOCK_RUNS + 1, _BLOCK_RUNS)
    return float(statistics.median(statistics.median(runs[start : start + _BLOCK_RUNS]) for start in starts))
