"""Plain tables, sizes and strict JSON."""

import json

from exporter.cli.outcome import format_bytes, format_json, format_table


def test_numbers_are_aligned_to_the_right_and_words_to_the_left():
    assert format_table(("name", "count"), [("a", "1"), ("long", "23")]).splitlines() == [
        "name  count",
        "----  -----",
        "a         1",
        "long     23",
    ]


def test_sizes_are_decimal():
    sizes = (999, 1_000, 23_086_700, 90_868_376_000)
    assert [format_bytes(size) for size in sizes] == ["999 B", "1.0 kB", "23.1 MB", "90.87 GB"]


def test_json_is_strict():
    text = format_json({"high": float("inf"), "rows": ({"low": float("nan")}, 1.5), "n": 1})
    assert json.loads(text, parse_constant=lambda word: word) == {"high": None, "rows": [{"low": None}, 1.5], "n": 1}
