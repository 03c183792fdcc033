"""Numbers as people read them. In: nanoseconds, bytes, ratios. Out: text. Must not import anything heavy."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

from bench.timing.compare import Verdict

# What stands for a figure that was not taken.
MISSING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"

VERDICT_WORDS: dict[Verdict, str] = {
    "faster": "faster",
    "same": "same",
    "slower": "slower",
    "inconclusive": "not told apart",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeUnit:
    """A unit for a whole table or chart: ``ns`` nanoseconds each, written with ``decimals``."""

    name: str
    ns: float
    decimals: int

    def format(self, ns: float) -> str:
        """Return the duration without its unit."""
        return f"{ns / self.ns:.{self.decimals}f}"


def choose_time_unit(smallest_ns: float) -> TimeUnit:
    """Return the unit in which the smallest duration of a column still has two digits or more."""
    if smallest_ns >= 1e9:
        return TimeUnit(name="s", ns=1e9, decimals=2)
    if smallest_ns >= 1e5:
        return TimeUnit(name="ms", ns=1e6, decimals=2 if smallest_ns >= 1e6 else 3)
    return TimeUnit(name="µs", ns=1e3, decimals=1)


def format_duration(ns: float) -> str:
    """Return a duration by itself, with its unit."""
    unit = choose_time_unit(ns)
    return f"{unit.format(ns)} {unit.name}"


def format_bytes(count: int) -> str:
    """Return a size in decimal units, as files are sold, or a negative difference of two."""
    if count < 0:
        return f"-{format_bytes(-count)}"
    for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.2f} GB" if name == "GB" else f"{count / size:.1f} {name}"
    return f"{count} B"


def format_count(count: int) -> str:
    """Return a whole number with its thousands set apart, or in millions where it is that large."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} G"
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def format_ratio(ratio: float) -> str:
    """Return a ratio with its sign of multiplication; an open end is a dash."""
    return f"{ratio:.2f}\N{MULTIPLICATION SIGN}" if math.isfinite(ratio) and ratio > 0 else MISSING


def format_bound(low: float, high: float) -> str:
    """Return the two ends of a bound; an end that few rounds leave open is a dash."""
    ends = [f"{end:.2f}" if math.isfinite(end) and end > 0 else MISSING for end in (low, high)]
    return f"{ends[0]} \N{HORIZONTAL ELLIPSIS} {ends[1]}"


def format_change(share: float) -> str:
    """Return a relative change in percent with its sign."""
    text = f"{abs(share) * 100:.1f}\N{NARROW NO-BREAK SPACE}%"
    if share == 0:
        return text
    return f"{'+' if share > 0 else _MINUS}{text}"


def format_share(share: float, decimals: int = 0) -> str:
    """Return a share in percent; one that would be rounded to nothing is said to be less than what is shown."""
    least = 10.0**-decimals
    sign = "<" if 0 < share * 100 < least / 2 else ""
    return f"{sign}{least if sign else share * 100:.{decimals}f}\N{NARROW NO-BREAK SPACE}%"


def make_printable(text: str, limit: int | None = None) -> str:
    """Return ``text`` with what cannot be drawn replaced, cut to ``limit`` characters where one is given.

    Control, direction and surrogate characters (Unicode categories C*) would break the XML of a chart, or turn around
    what stands beside them. The cut is in the middle: names differ at their ends.
    """
    clean = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(sign)[0] == "C" else sign for sign in text)
    if limit is None or len(clean) <= limit:
        return clean
    head = (limit - 1) // 2
    return f"{clean[:head]}\N{HORIZONTAL ELLIPSIS}{clean[len(clean) - limit + 1 + head :]}"
