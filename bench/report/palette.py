"""Colours of the charts, by role. matplotlib is given a placeholder; the page decides what it looks like.

The placeholder of each role becomes ``var(--role)``, so that one drawing serves the light and the dark page and paper.
"""

from __future__ import annotations

INK = "#010203"
MUTED = "#010204"
RULE = "#010205"
ACCENT = "#010206"
ALERT = "#010207"
PAPER = "#010208"
WASH = "#010209"

_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    ACCENT: "var(--accent)",
    ALERT: "var(--alert)",
    PAPER: "var(--paper)",
    WASH: "var(--wash)",
}


def name_colours(style: str) -> str:
    """Return a style with every placeholder replaced by its variable."""
    for placeholder, variable in _VARIABLES.items():
        style = style.replace(placeholder, variable)
    return style
