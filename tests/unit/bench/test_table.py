"""Markdown tables."""

from bench.table import render_markdown


def test_columns_are_padded_and_aligned():
    assert render_markdown(["what", "MB"], [["a model", "9.0"], ["b", "123.4"]]) == (
        "| what    |    MB |\n| ------- | ----: |\n| a model |   9.0 |\n| b       | 123.4 |"
    )


def test_a_table_without_rows_is_its_header():
    assert render_markdown(["a", "b"], []) == "| a   |   b |\n| --- | --: |"
