"""A history grows by whole lines and is read with the place of what is wrong."""

import resource
import signal

import pytest

from bench.recordings.history import append_history, read_history
from runtimes.errors import CorruptArtifact, OutputError, UsageError
from tests.unit.bench.made_recordings import make_history

FIRST, SECOND = make_history([100, 110])


def test_entries_come_back_in_order(tmp_path):
    path = tmp_path / "h.jsonl"
    append_history(path, FIRST)
    append_history(path, SECOND)
    assert read_history(path) == (FIRST, SECOND)


def test_a_missing_or_empty_history_says_how_to_make_one(tmp_path):
    (tmp_path / "empty").write_text("\n")
    for name, kind in (("absent", UsageError), ("empty", CorruptArtifact)):
        with pytest.raises(kind, match="stepdown bench --history"):
            read_history(tmp_path / name)


def test_a_cut_off_entry_is_named_and_nothing_is_glued_to_it(tmp_path):
    path = tmp_path / "h.jsonl"
    append_history(path, FIRST)
    path.write_bytes(path.read_bytes()[:-30])
    before = path.read_bytes()
    with pytest.raises(CorruptArtifact, match="cut off"):
        read_history(path)
    with pytest.raises(CorruptArtifact, match="delete its last line"):
        append_history(path, SECOND)
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", [b"{}", b"[1", b'{"kind": "stepdown-samples", "schema": 1}', b""])
def test_a_damaged_entry_is_named_by_its_line(tmp_path, line):
    path = tmp_path / "h.jsonl"
    append_history(path, FIRST)
    path.write_bytes(path.read_bytes() + line + b"\n" + path.read_bytes())
    with pytest.raises(CorruptArtifact, match=r"h\.jsonl:2"):
        read_history(path)


def test_no_place_is_an_output_error(tmp_path):
    with pytest.raises(OutputError):
        append_history(tmp_path / "absent" / "h.jsonl", FIRST)


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "h.jsonl"
    append_history(path, FIRST)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(OutputError, match="no room"):
            append_history(path, SECOND)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
