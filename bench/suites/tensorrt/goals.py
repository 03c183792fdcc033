"""What the TensorRT suite has to show, and whether it did. In: measured figures. Out: a row for each goal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.measuring.quality import Agreement
from bench.suites.goals import Goal
from bench.suites.tensorrt.graphs import FLOAT, OURS, PEERS
from bench.suites.tensorrt.plans import PlanFacts

LEAST_TOKEN_COSINE, LEAST_TEXT_COSINE = 0.985, 0.997
# MiniLM's: six layers of query, key, value, output and two of the feed-forward network.
LINEARS, LAYERS = 36, 6
# TensorRT normalises in FP32 and hands the mean and the differences of the last normalisation to a second kernel.
MOST_FLOAT32 = 2
LARGEST_SHARE_OF_FLOAT = 0.5
LONGEST_BUILD_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Accuracy of one graph on texts that nobody calibrated with.

    Attributes:
        tokens: Cosine of every token's vector with the float model's.
        texts: Cosine of every text's embedding with the float model's.
        lee: Spearman correlation with people on the Lee documents.
        wordsim: The same on WordSimilarity-353.
    """

    tokens: Agreement
    texts: Agreement
    lee: float
    wordsim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What one tool made, and what came of it.

    ``seconds`` is how long making took (None: nothing was made); ``accuracy`` and ``plan`` are None where there are
    none, and ``why`` says why.
    """

    sha256: str | None = None
    size_bytes: int | None = None
    seconds: float | None = None
    accuracy: Accuracy | None = None
    plan: PlanFacts | None = None
    why: tuple[str, ...] = ()


def judge_goals(subjects: Mapping[str, Subject]) -> tuple[Goal, ...]:
    """Judge our graph, where it is among them, against what was asked of it and against its peers."""
    if OURS not in subjects:
        return ()
    ours = subjects[OURS]
    peers = {key: found for key in PEERS if key in subjects and (found := subjects[key].accuracy) is not None}
    goals = judge_accuracy(ours.accuracy, peers)
    plain = subjects[FLOAT].plan if FLOAT in subjects else None
    return goals + (judge_plan(ours.plan, plain.size_bytes if plain else None) if ours.plan is not None else ())


def judge_accuracy(ours: Accuracy | None, peers: Mapping[str, Accuracy]) -> tuple[Goal, ...]:
    """Judge our accuracy (None: no number was answered) by itself, and against the best of the peers."""
    rows = (
        ("token cosine", _mean_of_tokens, LEAST_TOKEN_COSINE),
        ("embedding cosine", _mean_of_texts, LEAST_TEXT_COSINE),
    )
    goals = []
    for name, read, least in rows:
        value = None if ours is None else read(ours)
        goals.append(_judge_least(f"{name}, mean", value, least))
        nearest = max(peers, key=lambda peer: read(peers[peer]), default=None)
        if nearest is not None:
            goals.append(_judge_least(f"{name}, above every peer's (nearest: {nearest})", value, read(peers[nearest])))
    return tuple(goals)


def judge_plan(ours: PlanFacts, float_bytes: int | None) -> tuple[Goal, ...]:
    """Judge our plan; ``float_bytes`` is the size of the FP32 plan of the same model (None: it was not built)."""
    return tuple(_list_plan_goals(ours, float_bytes))


def _list_plan_goals(ours: PlanFacts, float_bytes: int | None) -> Iterator[Goal]:
    int8, left = len(ours.int8_linears), len(ours.float_linears)
    yield _make("linears in int8", f"all, at least {LINEARS}", f"{int8} of {int8 + left}", int8 >= LINEARS and not left)
    yield _make("query, key and value joined", f"{LAYERS} layers", f"{ours.joined}", ours.joined == LAYERS)
    wide = ours.count_float32()
    yield _make("FP32 between kernels, but for sums of int8", f"<= {MOST_FLOAT32}", str(wide), wide <= MOST_FLOAT32)
    yield _make("sums of int8 stored in FP16, which ends at 65504", "0", str(ours.half_sums), ours.half_sums == 0)
    if float_bytes is not None:
        share = ours.size_bytes / float_bytes
        holds = share <= LARGEST_SHARE_OF_FLOAT
        yield _make("size, of the FP32 plan", f"<= {LARGEST_SHARE_OF_FLOAT:.2f}", f"{share:.3f}", holds)
    if ours.seconds is not None:
        holds = ours.seconds < LONGEST_BUILD_SECONDS
        yield _make("build for four GPUs", f"< {LONGEST_BUILD_SECONDS:.0f} s", f"{ours.seconds:.1f} s", holds)


def _mean_of_tokens(accuracy: Accuracy) -> float:
    return accuracy.tokens.mean


def _mean_of_texts(accuracy: Accuracy) -> float:
    return accuracy.texts.mean


def _judge_least(name: str, value: float | None, least: float) -> Goal:
    measured = "no number" if value is None else f"{value:.4f}"
    return _make(name, f">= {least:.4f}", measured, value is not None and value >= least)


def _make(name: str, wanted: str, measured: str, holds: bool) -> Goal:
    return Goal(name=name, wanted=wanted, measured=measured, verdict="met" if holds else "missed")
