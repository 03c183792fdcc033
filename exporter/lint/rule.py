"""What a rule is and what it finds: plain data. Must not import a runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One place where a rule is broken: which node, what is wrong, what to do about it."""

    node: str
    what: str
    cure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A note with the rule it comes from. ``fixable``: ``--fix`` takes this very place away."""

    rule: str
    severity: Severity
    node: str
    what: str
    cure: str
    fixable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        name: As shown.
        severity: ``error``: the runtime refuses the graph or computes something else. ``warning``: slower, larger or
            less accurate than it could be.
        check: Yields a note for each place.
        fix: Edits the model in place and returns how many places; None where nothing can be rewritten.
        exact: Whether the fix leaves every output of a graph that runs as it was, but for a value that is rounded to
            the next step.
        reveals: Whether the graph's float meaning is seen only once this is fixed.
    """

    name: str
    severity: Severity
    check: Callable[[ir.Model], Iterator[Note]]
    fix: Callable[[ir.Model], int] | None = None
    exact: bool = True
    reveals: bool = False


def run_rules(model: ir.Model, rules: Sequence[Rule]) -> tuple[Finding, ...]:
    """Return what the rules find, in their order; whether it can be fixed is not looked at."""
    return tuple(
        Finding(rule=rule.name, severity=rule.severity, node=note.node, what=note.what, cure=note.cure)
        for rule in rules
        for note in rule.check(model)
    )
