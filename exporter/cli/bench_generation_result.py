"""A measurement of generation, as the terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.generation.measure import GenerationRecording
from bench.generation.tables import HEADER, list_memory, list_rows

if TYPE_CHECKING:
    from rich.console import RenderableType


def tell_recording(recording: GenerationRecording) -> list[str]:
    """Return one line for each model and shape, for pipes."""
    return [
        f"{label}, {shape.context} tokens x {shape.streams}: first token {times.first.median_ns() / 1e6:.1f} ms, "
        f"{times.tokens_per_second(shape):.1f} tokens/s"
        for shape, found in recording.times.items()
        for label, times in found.items()
    ]


def render_tables(recording: GenerationRecording) -> tuple[RenderableType, ...]:
    """Return a table for each shape, and one of the memory."""
    base = next(iter(recording.loaded_bytes))
    tables = [
        _render(
            f"behind {shape.context} tokens, {shape.streams} at once (against {base})",
            HEADER,
            list_rows(recording, shape, base),
        )
        for shape in recording.times
    ]
    return (*tables, _render("memory", ("model", "MB once loaded", "MB at most"), list_memory(recording)))


def _render(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in header:
        table.add_column(column, justify="left" if column == header[0] else "right")
    for row in rows:
        table.add_row(*row)
    return table
