"""A gate's answer as GitHub workflow commands, which become annotations. In: findings. Out: lines.

The form and its escapes are those of the actions toolkit (``packages/core/src/command.ts``). The runner reads them from
stdout and from stderr alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.ci.findings import Finding

_COMMANDS = {"failed": "error", "undecided": "warning", "error": "error"}


def render_annotations(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return a line for each finding that did not pass."""
    return tuple(
        f"::{_COMMANDS[one.status]} title={_escape_property(f'stepdown gate: {one.name}')}::{_escape(one.message)}"
        for one in findings
        if one.status != "passed"
    )


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")
