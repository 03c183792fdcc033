import pytest

from calibration.read_texts import read_rows
from runtimes.errors import DataError


def read(path, **options):
    return [row.texts for row in read_rows(path, **options)]


def test_a_text_a_line_without_the_blank_ones(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes("\ufeffone\r\n\n  \ntwo wörds\nthree".encode())
    assert read(path) == [("one",), ("two wörds",), ("three",)]


@pytest.mark.parametrize("column", ["text", "sentence", "content", "review"])
def test_columns_known_by_name(json_lines, column):
    assert read(json_lines({"id": 1, column: "a"}, {"id": 2, column: "b"})) == [("a",), ("b",)]


def test_pairs(json_lines):
    path = json_lines({"premise": "a", "hypothesis": "b", "text": "c"})
    assert read(path) == [("a", "b")]
    assert read(path, columns=("text", "premise")) == [("c", "a")]


def test_csv_with_quotes_and_line_ends_inside(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('label,text\n1,"a, ""b""\nc"\n0,d\n')
    assert [(row.texts, row.label) for row in read_rows(path, label="label")] == [(('a, "b"\nc',), "1"), (("d",), "0")]


def test_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": [1, 0]}), path)
    assert [(row.texts, row.label) for row in read_rows(path, label="label")] == [(("a",), 1), (("b",), 0)]


def test_labels_keep_their_type(json_lines):
    rows = list(read_rows(json_lines({"text": "a", "y": 1}, {"text": "b", "y": "pos"}), label="y"))
    assert [row.label for row in rows] == [1, "pos"]
    assert rows[1].where.endswith("data.jsonl:2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x7fELF\x00\x00\x00", "binary file"),
        (b"fine\nbad \xff\xfe byte\n", r"not UTF-8.*t.txt:2"),
        (b"x" * (1 << 20) + b"y\n", "longer than 1 MiB"),
    ],
)
def test_what_is_no_text(tmp_path, content, message):
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"text": "a"}', '{"text": '], r"broken JSON.*data.jsonl:2"),
        (['["a"]'], r"a JSON list, not an object.*data.jsonl:1"),
        (['{"body": "a", "id": 1}'], r"the columns are body, id"),
        (['{"text": 5}'], r"int in place of text.*data.jsonl:1:text"),
        (['{"text": "a"}', '{"txt": "b"}'], r"no column 'text'; the columns are txt.*data.jsonl:2"),
        (['{"text": null}'], r"no value in column 'text'"),
    ],
)
def test_broken_lines_are_named(json_lines, lines, message):
    with pytest.raises(DataError, match=message):
        read(json_lines(*lines))


def test_a_wrong_column_lists_the_ones_there_are(json_lines):
    with pytest.raises(DataError, match="no column 'body'; the columns are text, id"):
        read(json_lines({"text": "a", "id": 1}), columns=("body",))
    with pytest.raises(DataError, match="no column 'label'"):
        list(read_rows(json_lines({"text": "a"}), label="label"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'text\n"open quote\n', "broken CSV"),
        (b"text\n\xff\n", "not UTF-8"),
        (b"a,b\n1,2\n", "the columns are a, b"),
        (b"text,label\nx\n", "no value in column 'label'"),
        (b"\x00\x01", "binary"),
    ],
)
def test_broken_csv(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_rows(path, label="label" if b"label" in content else None))


def test_a_file_that_is_no_parquet(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match="not a parquet file"):
        read(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such data file"):
        read(tmp_path / "none.txt")


def test_txt_has_no_columns_and_three_are_too_many(text_file, json_lines):
    with pytest.raises(DataError, match="no columns, asked for body"):
        read(text_file, columns=("body",))
    with pytest.raises(DataError, match="3 text columns"):
        read(json_lines({"text": "a"}), columns=("a", "b", "c"))
