"""The compression suite's records as Markdown tables. In: records. Out: text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev

from bench.suites.compression.goals import LARGEST_LOSS, Records, find_best, lost_points
from bench.suites.compression.records import Record
from bench.suites.compression.rows import ROWS
from bench.suites.goals import Goal
from bench.table import render_markdown
from bench.timing.compare import Comparison

_TITLES = {
    "headline": "Against the FP32 PyTorch teacher, mean and spread over seeds",
    "methods": "Every method, on the movie sentences",
    "bounds": "How much can go, on the movie sentences",
    "quantisation": "Rounding afterwards and in training, on the movie sentences",
}
_HEADER = (
    "method",
    "task",
    "seeds",
    "MB",
    "times smaller",
    "accuracy",
    "points lost",
    "macro-F1",
    "speed 8x128, of PyTorch",
    "of ONNX Runtime FP32",
    "single texts, of ONNX Runtime FP32",
    "ships",
    "TensorRT",
    "trained in s",
)


def render_records(records: Records, failures: Mapping[str, str], goals: Sequence[Goal]) -> Iterator[str]:
    """Yield a table a part, what could not be made, and the goals."""
    for part, title in _TITLES.items():
        rows = [_render_row(some) for (key, _), some in records.items() if ROWS[key].part == part and some]
        if rows:
            yield f"{title}:\n\n{render_markdown(_HEADER, rows)}"
    untaken = [[one.key, one.plan.why] for some in records.values() for one in some if one.plan.why and one.seed == 0]
    if untaken:
        yield f"No plan:\n\n{render_markdown(['row', 'why'], untaken)}"
    if failures:
        yield f"Not made:\n\n{render_markdown(['row', 'why'], [list(one) for one in failures.items()])}"
    if best := list(find_best(records)):
        title = f"At most {LARGEST_LOSS} points lost on both tasks"
        yield f"{title}:\n\n{render_markdown(['best', 'row', 'worst of tasks and seeds'], best)}"
    if goals:
        yield render_goals(goals)


def render_goals(goals: Sequence[Goal]) -> str:
    """Return the goals, each met or missed."""
    rows = [[goal.name, goal.wanted, goal.measured, goal.verdict.upper()] for goal in goals]
    return render_markdown(["to show", "wanted", "measured", ""], rows)


def _render_row(records: Sequence[Record]) -> list[str]:
    first = records[0]
    large, single = ([one.times[shape] for one in records] for shape in ("8x128", "texts"))
    return [
        ROWS[first.key].title,
        first.task,
        str(len(records)),
        f"{fmean(one.artifact_bytes for one in records) / 1e6:.2f}",
        f"{fmean(one.teacher_bytes / one.artifact_bytes for one in records):.1f}",
        _show_spread([100 * one.quality.accuracy for one in records]),
        f"{lost_points(records):+.2f}",
        _show_spread([100 * one.quality.macro_f1 for one in records]),
        _show_speed([one.against_torch for one in large]),
        _show_speed([one.against_ort for one in large]),
        _show_speed([one.against_ort for one in single]),
        first.candidate,
        first.plan.tier,
        f"{fmean(one.train_seconds for one in records):.0f}",
    ]


def _show_speed(found: Sequence[Comparison]) -> str:
    low, high = min(one.low for one in found), max(one.high for one in found)
    return f"{fmean(one.ratio for one in found):.2f} [{low:.2f}, {high:.2f}]"


def _show_spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
