"""What the trials say: how often each answer came, with the interval of that rate, beside what other rules say. Pure.

In: trials. Out: Markdown, computed anew from the raw nanoseconds.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bench.gating.rule import judge_times
from bench.peers.latency_gates import RULES
from bench.suites.gate.trials import LIMITS, SHAPE, Trial
from bench.table import render_markdown
from bench.timing.compare import Verdict, compare
from bench.timing.samples import Samples
from runtimes.errors import Regression

IDENTICAL = ("same", "busy")
_VERDICTS: tuple[Verdict, ...] = ("faster", "same", "inconclusive", "slower")
_SHORT_S = 10.0


def render_tables(trials: Sequence[Trial]) -> str:
    """Return all tables."""
    names = sorted({one.kind for one in trials}, key=_place)
    kinds = {name: [one for one in trials if one.kind == name] for name in names}
    parts = [
        _render_verdicts(kinds),
        _render_rules(kinds),
        _render_hours([one for one in trials if one.kind in IDENTICAL]),
        _describe_limit([one for one in trials if one.verdict == "same"]),
    ]
    return "\n\n".join(parts)


def describe_rate(hits: int, trials: int) -> str:
    """Return a rate with its 95 % interval (Clopper and Pearson 1934): ``1/60: 1.7 % [0.0, 8.9]``."""
    from scipy.stats import binomtest

    interval = binomtest(hits, trials).proportion_ci(0.95, method="exact")
    return f"{hits}/{trials}: {hits / trials:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def is_alarm(trial: Trial) -> bool:
    """Return whether the gate failed with a regression, of time or of a figure."""
    return trial.exit_code == Regression.exit_code


def judge_early(trial: Trial, seconds: float) -> Verdict:
    """Return what the gate would have said after ``seconds``: on the rounds that had been done by then."""
    rounds = int(len(trial.base_ns) * min(1.0, seconds / trial.seconds))
    cut = replace(trial, base_ns=trial.base_ns[:rounds], head_ns=trial.head_ns[:rounds])
    return judge_times({SHAPE: cut.pair()}, LIMITS, paired=True)[0].verdict if rounds else "inconclusive"


def _place(kind: str) -> tuple[int, int, str]:
    """Identical models first, then the slower ones from the least to the most: slow-3 before slow-10."""
    return (IDENTICAL.index(kind) if kind in IDENTICAL else len(IDENTICAL), len(kind), kind)


def _render_verdicts(kinds: Mapping[str, Sequence[Trial]]) -> str:
    header = ["trials", "head takes, all rounds together", "s (median)", *_VERDICTS, "exit 6"]
    rows = []
    for name, trials in kinds.items():
        counts = Counter(trial.verdict for trial in trials)
        rows.append(
            [
                name,
                _describe_slowdown(trials),
                f"{statistics.median(trial.seconds for trial in trials):.1f}",
                *(str(counts[verdict]) for verdict in _VERDICTS),
                describe_rate(sum(map(is_alarm, trials)), len(trials)),
            ]
        )
        if any(trial.budget_s > _SHORT_S for trial in trials):
            early = Counter(judge_early(trial, _SHORT_S) for trial in trials)
            answered = [*(str(early[verdict]) for verdict in _VERDICTS), describe_rate(early["slower"], len(trials))]
            rows.append([f"{name}, after 10 s of the same trials", "", f"{_SHORT_S:.1f}", *answered])
    return render_markdown(header, rows)


def _describe_slowdown(trials: Sequence[Trial]) -> str:
    pooled = [
        Samples(label=label, ns=tuple(block for trial in trials for block in side(trial)), warmup_ns=(), machine={})
        for label, side in (("base", _base_blocks), ("head", _head_blocks))
    ]
    found = compare(*pooled)
    return f"{1 / found.ratio - 1:+.2%} [{1 / found.high - 1:+.2%}, {1 / found.low - 1:+.2%}]"


def _base_blocks(trial: Trial) -> Sequence[tuple[int, ...]]:
    return trial.base_ns


def _head_blocks(trial: Trial) -> Sequence[tuple[int, ...]]:
    return trial.head_ns


def _render_rules(kinds: Mapping[str, Sequence[Trial]]) -> str:
    """Return how often each rule alarms on the same trials: the gate on its rounds, others on the sequential runs."""
    ours: Mapping[str, Callable[[Trial], bool]] = {"the gate": is_alarm}
    header = ["alarms", *ours, *RULES]
    rows = []
    for name, trials in kinds.items():
        alarms = [sum(map(rule, trials)) for rule in ours.values()]
        alarms += [sum(rule(one.base_run_ns, one.head_run_ns) for one in trials) for rule in RULES.values()]
        rows.append([name, *(describe_rate(count, len(trials)) for count in alarms)])
    return render_markdown(header, rows)


def _render_hours(trials: Sequence[Trial]) -> str:
    hours = dict.fromkeys(trial.started[:13] for trial in sorted(trials, key=lambda one: one.started))
    rows = []
    for hour in hours:
        mine = [trial for trial in trials if trial.started.startswith(hour)]
        medians_ms = [trial.pair()[0].median_ns() / 1e6 for trial in mine]
        alarms = sum(trial.verdict == "slower" for trial in mine)
        span = f"{min(medians_ms):.2f} to {max(medians_ms):.2f}"
        rows.append([f"{hour.replace('T', ' ')} h UTC", str(len(mine)), span, str(alarms)])
    return render_markdown(["identical models", "trials", "base takes, ms", '"slower"'], rows)


def _describe_limit(same: Sequence[Trial]) -> str:
    """Say how many answers "same" had a bound that could not exclude the limit: the rule allows none."""
    lows = [compare(*trial.pair(), confidence=LIMITS.confidence).low for trial in same]
    wrong = sum(low <= 1 / (1 + LIMITS.max_regression) for low in lows)
    return f'"Same" with a bound that cannot exclude {LIMITS.max_regression:.0%}: {wrong} of {len(same)}.'
