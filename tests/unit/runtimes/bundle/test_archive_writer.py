"""Writing archives: the same bytes for the same content, which other tools read; whole or not at all."""

import gzip
import os
import tarfile

import pytest

from runtimes.bundle.archive_writer import write_archive
from runtimes.errors import CorruptArtifact, OutputError
from tests.unit.runtimes.bundle.tiny_bundle import BLOBS, good_members, make_description, make_tar, sha256, write_bundle


def test_other_tools_read_it(tmp_path):
    with tarfile.open(write_bundle(tmp_path / "b"), format=tarfile.USTAR_FORMAT) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == [name for name, _ in good_members()]
    assert {(m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime, m.type) for m in members} == {
        (0o644, 0, 0, "", "", 0, tarfile.REGTYPE)
    }


def test_the_same_content_gives_the_same_bytes(tmp_path, monkeypatch):
    first = write_bundle(tmp_path / "a", b"s").read_bytes()
    monkeypatch.setattr("time.time", lambda: 1e9)
    old = os.umask(0o077)
    try:
        again = write_bundle(tmp_path / "another name", b"s").read_bytes()
    finally:
        os.umask(old)
    assert first == again
    assert gzip.decompress(first) == make_tar([good_members()[0], ("signatures.json", b"s"), *good_members()[1:]])


def test_blobs_may_be_files(tmp_path):
    files = {}
    for name, data in BLOBS.items():
        files[name] = tmp_path / name
        files[name].write_bytes(data)
    write_archive(tmp_path / "b", make_description(), files)
    assert (tmp_path / "b").read_bytes() == write_bundle(tmp_path / "c").read_bytes()


def test_a_file_that_changes_while_it_is_packed_leaves_nothing(tmp_path):
    with pytest.raises(CorruptArtifact, match="not the blob"):
        write_archive(tmp_path / "b", make_description(), {**BLOBS, sha256(b"{}"): b"[]"})
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_there_is_an_output_error(tmp_path):
    with pytest.raises(OutputError):
        write_bundle(tmp_path / "absent" / "b")
