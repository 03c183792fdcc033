"""Names beside points: none covers another or a point, all stay inside."""

import itertools

from bench.report.labels import Box, place_labels

ROOM = Box(left=0, bottom=0, right=266, top=200)


def test_a_lonely_point_has_its_name_to_the_right():
    (box,) = place_labels([(50, 100)], [60], 15, ROOM)
    assert box.left > 50
    assert (box.bottom + box.top) / 2 == 100


def test_names_cover_neither_points_nor_each_other():
    points = [(100, 100), (130, 101), (255, 100), (5, 195), (20, 160)]
    boxes = place_labels(points, [70, 80, 75, 60, 60], 15, ROOM)
    dots = [Box(left=x - 3, bottom=y - 3, right=x + 3, top=y + 3) for x, y in points]
    assert [pair for pair in itertools.combinations([*boxes, *dots], 2) if pair[0].overlap(pair[1])] == []


def test_names_stay_inside():
    for box in place_labels([(0, 0), (266, 200), (266, 0), (0, 200)], [170] * 4, 15, ROOM):
        assert ROOM.left <= box.left < box.right <= ROOM.right
        assert ROOM.bottom <= box.bottom < box.top <= ROOM.top
