"""Packing with a signature, inside or beside: whatever fails, no archive has the signature of another."""

import errno
from pathlib import Path

import pytest

from runtimes.bundle.archive import open_archive


@pytest.fixture
def detached(stepdown, export, bundle, key, tmp_path):
    """(the words that packed a bundle with its signature beside it, that signature's file)."""
    words = ("pack", export, "-o", bundle, "--sign", key, "--detached", "--force")
    assert stepdown(*words).code == 0
    return words, tmp_path / "films.stepdown.tar.gz.sig"


def test_a_bundle_is_signed_inside_or_beside(stepdown, export, bundle, key, tmp_path):
    result = stepdown("pack", export, "-o", bundle, "--sign", key)
    assert result.code == 0, result.err
    assert "unsigned" not in result.err
    with open_archive(bundle) as archive:
        inside, covered = archive.signatures, archive.description_bytes
    beside = tmp_path / "films.stepdown.tar.gz.sig"
    assert not beside.exists()
    assert stepdown("pack", export, "-o", bundle, "--sign", key, "--detached", "--force").code == 0
    with open_archive(bundle) as archive:
        assert archive.signatures is None
        assert archive.description_bytes == covered
    assert beside.read_bytes() == inside


def test_a_signature_of_an_older_bundle_is_not_left_beside_a_new_one(stepdown, export, bundle, key, tmp_path):
    beside = tmp_path / "films.stepdown.tar.gz.sig"
    assert stepdown("pack", export, "-o", bundle, "--sign", key, "--detached").code == 0
    bundle.unlink()
    assert stepdown("pack", export, "-o", bundle).code == 2
    assert beside.exists()
    assert stepdown("pack", export, "-o", bundle, "--force").code == 0
    assert not beside.exists()


def test_a_signature_that_cannot_be_written_leaves_what_was_there(stepdown, bundle, detached):
    words, beside = detached
    before = bundle.read_bytes()
    beside.unlink()
    beside.mkdir()
    result = stepdown(*words, "--version", 7)
    assert result.code == 2
    assert "in the way" in result.err
    assert "to fix:" in result.err
    assert bundle.read_bytes() == before
    assert beside.is_dir()


@pytest.mark.parametrize("failing", ["write_bytes", "Path.replace"])
def test_a_disk_without_room_leaves_a_bundle_with_its_signature(
    stepdown, bundle, detached, tmp_path, monkeypatch, failing
):
    words, beside = detached
    before = bundle.read_bytes(), beside.read_bytes()
    replace = Path.replace

    def fail(path, *rest):
        if failing == "write_bytes" or rest == (bundle,):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, *rest)

    monkeypatch.setattr(f"exporter.packing.write.{failing}", fail)
    assert stepdown(*words, "--version", 7).code == 2
    assert (bundle.read_bytes(), beside.read_bytes()) == before
    assert {path.name for path in tmp_path.iterdir()} == {"films", "key.pem", bundle.name, beside.name}


class Killed(BaseException):
    """What no handler of ours takes for an error."""


@pytest.mark.parametrize("last", [1, 2, 3])
def test_a_kill_between_two_renames_leaves_no_signature_of_another_archive(
    stepdown, bundle, detached, monkeypatch, last
):
    words, beside = detached
    before = bundle.read_bytes(), beside.read_bytes()
    replace, moves = Path.replace, []

    def die(path, target):
        if target in {bundle, beside} or path in {bundle, beside}:
            moves.append(target)
            if len(moves) == last:
                raise Killed
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(Killed):
        stepdown(*words, "--version", 7)
    assert (bundle.read_bytes() == before[0]) == (last < 3)
    assert beside.exists() == (last == 1)


def test_an_unsigned_bundle_is_said_to_be_unsigned(stepdown, export, bundle):
    assert "unsigned" in stepdown("pack", export, "-o", bundle).err
