"""A table as plain data, for the page to lay out and to sort. Must not import anything heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "good", "bad", "quiet"]


@dataclass(frozen=True, slots=True)
class Cell:
    """``text`` is shown; ``sort`` orders numbers, where there is one."""

    text: str
    sort: float | None = None
    tone: Tone = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """``unit`` is shown beside the title; ``numeric`` columns stand to the right and sort by number.

    An ``aside`` column belongs to the row's name: on a phone it stands beside it.
    """

    title: str
    unit: str = ""
    numeric: bool = False
    aside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of as many cells as there are columns; the first cell names its row."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def drop_empty(self, empty: str) -> Table:
        """Return the table without the columns in which every cell is ``empty``."""
        kept = [number for number in range(len(self.columns)) if any(row[number].text != empty for row in self.rows)]
        return Table(
            caption=self.caption,
            columns=tuple(self.columns[number] for number in kept),
            rows=tuple(tuple(row[number] for number in kept) for row in self.rows),
        )
