"""What the compression suite has to show, and whether it did. In: records of rows. Out: a row for each goal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from bench.suites.compression.data import MOVIES, REUTERS
from bench.suites.compression.records import NO_TIER, Record
from bench.suites.compression.rows import HEADLINE, ROWS
from bench.suites.goals import Goal, decide, show_ratio

# The headline: against the FP32 PyTorch teacher at 8x128, on both tasks.
LEAST_SPEED, LEAST_SHRINKING, LARGEST_LOSS = 4.2, 16.0, 0.8
# Points that may be lost on the movie sentences.
LOSSES = {"prune-80": 0.5, "prune-90": 1.5, "two-of-four": 0.5, "int4-aware": 1.0}
# The loss of the second-order method as a share of the loss of magnitude, both at once and without training.
LARGEST_SHARE_OF_MAGNITUDE = 0.5
_SEEDS = 3
PTQ = ("int8-dynamic", "int8-static")

#: Records by key of the row and task, one a seed.
Records = Mapping[tuple[str, str], Sequence[Record]]


def lost_points(records: Sequence[Record]) -> float:
    """Return how much accuracy was lost against the teacher, in points, mean over seeds."""
    return fmean(100 * (one.teacher.accuracy - one.quality.accuracy) for one in records)


def judge_all(records: Records) -> tuple[Goal, ...]:
    """Judge everything that there are records for."""
    return (
        *(goal for key in HEADLINE for goal in judge_headline(key, records)),
        *judge_methods(records),
        *judge_bounds(records),
        *judge_quantisation(records),
    )


def judge_headline(key: str, records: Records) -> Iterator[Goal]:
    """Judge one recipe on both tasks: speed, size and loss, and that it had all its seeds."""
    for task in (MOVIES, REUTERS):
        some = records.get((key, task), ())
        if not some:
            continue
        slowest = min((one.times["8x128"].against_torch for one in some), key=lambda found: found.low)
        size = min(one.teacher_bytes / one.artifact_bytes for one in some)
        lost = lost_points(some)
        seeds = f"{len(some)} of {_SEEDS} seeds"
        yield Goal(
            name=f"{key}, {task}: speed against PyTorch at 8x128, slowest of {seeds}",
            wanted=f">= {LEAST_SPEED}",
            measured=show_ratio(slowest),
            verdict=decide(slowest.low >= LEAST_SPEED),
        )
        yield Goal(
            name=f"{key}, {task}: times smaller, tokenizer included, largest of {seeds}",
            wanted=f">= {LEAST_SHRINKING:.0f}",
            measured=f"{size:.1f}",
            verdict=decide(size >= LEAST_SHRINKING),
        )
        yield _judge_loss(f"{key}, {task}: points lost, mean of {seeds}", lost, LARGEST_LOSS)


def find_best(records: Records) -> Iterator[tuple[str, str, str]]:
    """Yield what is best, of which row and how much: among headline rows that lose little enough on both tasks."""
    able = {}
    for key, row in ROWS.items():
        some = [records.get((key, task), ()) for task in row.tasks]
        if row.part == "headline" and all(some) and max(map(lost_points, some)) <= LARGEST_LOSS:
            able[key] = [one for found in some for one in found]
    if able:
        speeds = {key: min(one.times["8x128"].against_torch.ratio for one in some) for key, some in able.items()}
        sizes = {key: max(one.artifact_bytes for one in some) for key, some in able.items()}
        fastest, smallest = max(speeds, key=speeds.__getitem__), min(sizes, key=sizes.__getitem__)
        yield "fastest", fastest, f"{speeds[fastest]:.2f} times PyTorch at 8x128"
        yield "smallest", smallest, f"{sizes[smallest] / 1e6:.2f} MB"


def judge_methods(records: Records) -> Iterator[Goal]:
    """Judge that every row on the movie sentences is there, and became a plan."""
    wanted = [key for key, row in ROWS.items() if row.part != "headline"]
    there = [key for key in wanted if records.get((key, MOVIES))]
    if not there:
        return
    built = [key for key in there if all(one.plan.tier != NO_TIER for one in records[key, MOVIES])]
    for name, found in (("rows measured", there), ("rows with a plan of TensorRT", built)):
        missing = [key for key in wanted if key not in found]
        yield Goal(
            name=f"{name}{': not ' if missing else ''}{', '.join(missing)}",
            wanted=str(len(wanted)),
            measured=str(len(found)),
            verdict=decide(not missing),
        )


def judge_bounds(records: Records) -> Iterator[Goal]:
    """Judge what may be lost at given shares of zeros, and the second-order method beside magnitude."""
    for key in ("prune-80", "prune-90", "two-of-four"):
        if some := records.get((key, MOVIES)):
            yield _judge_loss(f"{key}: points lost", lost_points(some), LOSSES[key])
    magnitude, second = (records.get((key, MOVIES)) for key in ("once-magnitude", "once-second-order"))
    if magnitude and second:
        yield _judge_loss(
            "at once, 50 %: points lost by second-order, against half of magnitude's",
            lost_points(second),
            LARGEST_SHARE_OF_MAGNITUDE * lost_points(magnitude),
        )


def judge_quantisation(records: Records) -> Iterator[Goal]:
    """Judge training with rounding beside the best rounding afterwards."""
    afterwards = [lost_points(some) for key in PTQ if (some := records.get((key, MOVIES)))]
    aware = records.get(("int8-aware", MOVIES))
    if aware and len(afterwards) == len(PTQ):
        yield _judge_loss("int8-aware: points lost, against the best afterwards", lost_points(aware), min(afterwards))
    if some := records.get(("int4-aware", MOVIES)):
        yield _judge_loss("int4-aware: points lost", lost_points(some), LOSSES["int4-aware"])


def _judge_loss(name: str, lost: float, most: float) -> Goal:
    return Goal(name=name, wanted=f"<= {most:.2f}", measured=f"{lost:+.2f}", verdict=decide(lost <= most))
