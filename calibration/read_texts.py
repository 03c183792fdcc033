"""Rows of text out of ``.txt``, ``.jsonl``, ``.csv`` and ``.parquet`` files, one at a time.

In: a path and the names of the columns. Out: an iterator of :class:`Row`. Nothing is kept, so a file of any length
takes the memory of one row. Must not import a runtime, torch or transformers.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from runtimes.errors import DataError, MissingDependency

TEXT_SUFFIXES = (".txt", ".jsonl", ".csv", ".parquet")
#: A line past this is not text for a model that reads a few hundred tokens; it is a file of another kind.
LONGEST_LINE_BYTES = 1 << 20
#: Looked for in this order where no column is named; the first that the file has wins.
KNOWN_COLUMNS: tuple[tuple[str, ...], ...] = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "context"),
    ("question", "sentence"),
    ("text_a", "text_b"),
    ("text",),
    ("sentence",),
    ("content",),
    ("review",),
    ("document",),
    ("question",),
)
_CURE_ENCODING = "give plain text in UTF-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One text (or pair of texts), its label where one was asked for, and where it stands (``file:line``)."""

    texts: tuple[str, ...]
    label: object | None
    where: str


def read_rows(path: Path, *, columns: Sequence[str] = (), label: str | None = None) -> Iterator[Row]:
    """Yield the rows of ``path`` in file order, without those whose texts are all blank.

    Args:
        path: A file with one of ``TEXT_SUFFIXES``.
        columns: One column, or two for a pair; empty to look for ``KNOWN_COLUMNS``.
        label: A column whose value goes to ``Row.label``.

    Raises:
        DataError: missing, binary, not UTF-8, broken syntax, or a column that is not there (the message lists those
            that are), each with file and line.
        MissingDependency: ``.parquet`` without pyarrow.
    """
    if len(columns) > 2:
        raise DataError(
            f"{len(columns)} text columns", where=", ".join(columns), cure="name one column, or two for pairs"
        )
    if not path.is_file():
        raise DataError("there is no such data file", where=str(path), cure="check the path")
    if path.suffix == ".txt":
        rows = _read_txt(path, columns, label)
    else:
        records = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}[path.suffix](path)
        rows = _pick_columns(path, records, columns, label)
    return (row for row in rows if any(text.strip() for text in row.texts))


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without its line end)."""
    with path.open("rb") as stream:
        _refuse_binary(path, stream)
        number = 0
        while line := stream.readline(LONGEST_LINE_BYTES + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > LONGEST_LINE_BYTES:
                raise DataError("a line is longer than 1 MiB", where=where, cure="give one text a line")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"not UTF-8: {error.reason}", where=where, cure=_CURE_ENCODING) from error
            yield number, text.rstrip("\r\n")


def _refuse_binary(path: Path, stream: IO[bytes]) -> None:
    """Raise where the first 64 KiB hold a NUL byte, which no text has."""
    if b"\0" in stream.read(1 << 16):
        raise DataError("this is a binary file, not text", where=str(path), cure=_CURE_ENCODING)
    stream.seek(0)


def _read_txt(path: Path, columns: Sequence[str], label: str | None) -> Iterator[Row]:
    wanted = [*columns, *([label] if label else [])]
    if wanted:
        cure = "give .jsonl, .csv or .parquet"
        raise DataError(f"a .txt file has no columns, asked for {', '.join(wanted)}", where=str(path), cure=cure)
    for number, line in _read_lines(path):
        yield Row(texts=(line,), label=None, where=f"{path}:{number}")


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _read_lines(path):
        if not line.strip():
            continue
        where, cure = f"{path}:{number}", 'give one JSON object a line, such as {"text": "..."}'
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"broken JSON: {error}", where=where, cure=cure) from error
        if not isinstance(record, dict):
            raise DataError(f"a JSON {type(record).__name__}, not an object", where=where, cure=cure)
        yield number, record


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as stream:
        _refuse_binary(path, stream)
    with path.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, strict=True)
        while True:
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                where = f"{path}:{reader.line_num}"
                raise DataError(f"broken CSV: {error}", where=where, cure="quote the fields") from error
            except UnicodeDecodeError as error:
                where = f"{path}:{reader.line_num + 1}"
                raise DataError(f"not UTF-8: {error.reason}", where=where, cure=_CURE_ENCODING) from error
            yield reader.line_num, record


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependency(
            "reading .parquet needs pyarrow", where=str(path), cure="pip install pyarrow, or give .jsonl"
        ) from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                number += 1
                yield number, record
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"not a parquet file: {error}", where=str(path), cure="write it again") from error


def _pick_columns(
    path: Path, records: Iterator[tuple[int, dict[str, Any]]], columns: Sequence[str], label: str | None
) -> Iterator[Row]:
    chosen = tuple(columns)
    for number, record in records:
        where = f"{path}:{number}"
        chosen = chosen or _find_columns(record, where)
        texts = tuple(_take_text(record, column, where) for column in chosen)
        yield Row(texts=texts, label=_take(record, label, where) if label else None, where=where)


def _find_columns(record: dict[str, Any], where: str) -> tuple[str, ...]:
    for candidate in KNOWN_COLUMNS:
        if all(column in record for column in candidate):
            return candidate
    found = ", ".join(map(str, record)) or "none"
    raise DataError(f"no text column known by name; the columns are {found}", where=where, cure="name it with --column")


def _take_text(record: dict[str, Any], column: str, where: str) -> str:
    text = _take(record, column, where)
    if not isinstance(text, str):
        cure = "give text, or name another column"
        raise DataError(f"{type(text).__name__} in place of text", where=f"{where}:{column}", cure=cure)
    return text


def _take(record: dict[str, Any], column: str, where: str) -> object:
    if column not in record:
        found = ", ".join(map(str, record)) or "none"
        raise DataError(f"no column {column!r}; the columns are {found}", where=where, cure="name one of these")
    if record[column] is None:
        raise DataError(f"no value in column {column!r}", where=where, cure="fill it in, or drop the row")
    return record[column]
