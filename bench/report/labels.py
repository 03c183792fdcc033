"""Where the names of points go so that they cover neither points nor each other. Pure; in CSS pixels, y upwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_DOT_RADIUS = 6.0
_GAP = 9.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Return the common area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)


def place_labels(
    points: Sequence[tuple[float, float]], widths: Sequence[float], height: float, room: Box
) -> tuple[Box, ...]:
    """Return a box beside each point: of the eight around it the one that covers least, the right one if all are free.

    Args:
        points: Centres.
        widths: Of the labels, one a point.
        height: Of every label.
        room: What no box leaves.
    """
    taken = [
        Box(left=x - _DOT_RADIUS, bottom=y - _DOT_RADIUS, right=x + _DOT_RADIUS, top=y + _DOT_RADIUS) for x, y in points
    ]
    placed: list[Box] = []
    for (x, y), width in zip(points, widths, strict=True):
        choices = [_move_inside(box, room) for box in _list_choices(x, y, width, height)]
        best = min(choices, key=lambda box: sum(box.overlap(other) for other in taken))
        placed.append(best)
        taken.append(best)
    return tuple(placed)


def _list_choices(x: float, y: float, width: float, height: float) -> list[Box]:
    """Right, left, above, below, then above and below with one end at the point."""
    aside, upright = _GAP + width / 2, _GAP + height / 2
    along = width / 2 - _DOT_RADIUS
    centres = [(aside, 0.0), (-aside, 0.0), (0.0, upright), (0.0, -upright)]
    centres += [(side * along, rise * upright) for rise in (1, -1) for side in (1, -1)]
    return [
        Box(left=x + a - width / 2, bottom=y + b - height / 2, right=x + a + width / 2, top=y + b + height / 2)
        for a, b in centres
    ]


def _move_inside(box: Box, room: Box) -> Box:
    """Return the box moved as little as needed; one that is larger than the room keeps its left end inside."""
    across = max(room.left - box.left, min(0.0, room.right - box.right))
    upwards = max(room.bottom - box.bottom, min(0.0, room.top - box.top))
    return Box(left=box.left + across, bottom=box.bottom + upwards, right=box.right + across, top=box.top + upwards)
