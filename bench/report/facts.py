"""What a run was made on and how quiet it was, as pairs of words. In: a recording. Out: names and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bench.gating.verdict import GateResult
from bench.recordings.recording import Recording
from bench.report.units import MISSING, format_bytes, format_share

# What a plan could not measure, one sentence each.
_LEFT_OUT = "left_out"
_SHARES = {"steal"}
_ACRONYMS = {"cpu", "isa", "gpu"}
_UNITS = {
    "_bytes": "",
    "_seconds": "s",
    "_s": "s",
    "_ns": "ns",
    "_mhz": "MHz",
    "_celsius": "\N{DEGREE SIGN}C",
    "_watts": "W",
    "_percent": "%",
    "_gflops": "GFLOP/s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A name and what is known under it."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What must be read before the numbers; ``grave`` where they should not be trusted, or are not there."""

    text: str
    grave: bool


def list_notices(recording: Recording, gate: GateResult | None) -> tuple[Notice, ...]:
    """Return what disturbed the run, what failed in it, and what the gate wants known."""
    unstable = [Notice(text=f"Unstable: {text}", grave=True) for text in recording.conditions.unstable]
    failed = [
        Notice(text=f"{one.label} failed: {one.failure}", grave=True)
        for one in recording.subjects
        if one.failure is not None
    ]
    told = [] if gate is None else [Notice(text=text, grave=False) for text in gate.notes]
    differing = [] if gate is None else [Notice(text=f"Differs: {text}", grave=True) for text in gate.differences]
    left_out = [Notice(text=f"Left out: {text}", grave=False) for text in recording.plan.get(_LEFT_OUT, ())]
    noted = [Notice(text=f"{one.label}: {text}", grave=False) for one in recording.subjects for text in one.notes]
    return (*unstable, *failed, *differing, *left_out, *noted, *told)


def list_plan(recording: Recording) -> tuple[Fact, ...]:
    """Return how it was measured; what was left out is among the notices."""
    return list_facts({key: value for key, value in recording.plan.items() if key != _LEFT_OUT})


def list_conditions(recording: Recording) -> tuple[Fact, ...]:
    """Return how quiet the machine was."""
    conditions = recording.conditions
    probes = " \N{RIGHTWARDS ARROW} ".join(f"{value:.0f}" for value in conditions.probe_gflops)
    facts = [
        Fact(name="Matrix-product probe", text=f"{probes} GFLOP/s" if probes else MISSING),
        Fact(name="Taken by the host (steal)", text=_show_share(conditions.steal_share)),
        Fact(name="Used by other processes", text=_show_share(conditions.busy_share)),
    ]
    for number, reading in enumerate(conditions.gpu):
        facts += [Fact(name=f"GPU {number + 1}, {fact.name}", text=fact.text) for fact in list_facts(reading)]
    return tuple(facts)


def list_facts(described: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Return a description as pairs of words; what is not known is left out.

    Nested descriptions follow in their place (versions by the package's own name), and the unit of a key
    (``pause_s``) goes to its value.
    """
    facts: list[Fact] = []
    for key, value in described.items():
        if isinstance(value, Mapping):
            facts += [Fact(name=str(name), text=_show(str(name), each)) for name, each in value.items()]
        elif value not in (None, "", [], ()):
            facts.append(Fact(name=_name(key), text=_show(key, value)))
    return tuple(facts)


def write_byline(recording: Recording) -> tuple[str, ...]:
    """Return where, when and of what the run was, shortest first."""
    machine = recording.machine
    parts = [_write_date(recording.started)]
    if machine.get("cpu"):
        cores = machine.get("cores")
        parts.append(f"{machine['cpu']}" + (f", {cores} {'core' if cores == 1 else 'cores'}" if cores else ""))
    if recording.commit:
        parts.append(f"commit {recording.commit[:10]}")
    return (*parts, f"run {recording.run[:12]}")


def _write_date(started: str) -> str:
    try:
        moment = datetime.fromisoformat(started)
    except ValueError:
        # A recording from elsewhere may write its dates otherwise; the text is shown as it is.
        return started
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def _show_share(share: float | None) -> str:
    return MISSING if share is None else format_share(share, 1)


def _name(key: str) -> str:
    words = _strip_unit(key)[0].replace("_", " ")
    return words.upper() if words in _ACRONYMS else words[:1].upper() + words[1:]


def _show(key: str, value: object) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return format_bytes(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    if key in _SHARES and isinstance(value, float):
        return format_share(value, 1)
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    unit = _strip_unit(key)[1]
    return f"{text} {unit}" if unit else text


def _strip_unit(key: str) -> tuple[str, str]:
    for suffix, unit in _UNITS.items():
        if key.endswith(suffix):
            return key.removesuffix(suffix), unit
    return key, ""
