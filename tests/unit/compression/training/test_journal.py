"""Metrics are appended, and cut back to where a run goes on."""

import json

from compression.training.journal import Journal


def write(path, *steps):
    journal = Journal(path=path / "metrics.jsonl")
    for step in steps:
        journal.write({"step": step, "loss": 0.5})
    return journal


def read(journal):
    return [json.loads(line)["step"] for line in journal.path.read_text().splitlines()]


def test_entries_are_lines(tmp_path):
    assert read(write(tmp_path, 0, 1)) == [0, 1]


def test_it_is_cut_back_to_a_size(tmp_path):
    journal = write(tmp_path, 0)
    size = journal.size_bytes()
    write(tmp_path, 1, 1)
    journal.cut_back(size)
    assert read(journal) == [0]


def test_steps_are_dropped_from_the_one_that_starts_anew(tmp_path):
    journal = write(tmp_path, 0, 1, 1, 2)
    journal.drop_from(1)
    assert read(journal) == [0]


def test_a_line_that_a_kill_cut_short_goes(tmp_path):
    journal = write(tmp_path, 0)
    with journal.path.open("a") as stream:
        stream.write('{"step": 0, "lo')
    journal.drop_from(3)
    assert read(journal) == [0]


def test_nothing_written_is_nothing_to_cut(tmp_path):
    journal = Journal(path=tmp_path / "metrics.jsonl")
    journal.drop_from(0)
    assert journal.size_bytes() == 0
