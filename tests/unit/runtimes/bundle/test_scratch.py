"""What a killed process left among temporary files goes with the next one; what is in use, young or not ours stays."""

import errno
import fcntl
import os
import tempfile

import pytest

from runtimes.bundle.scratch import scratch_folder
from tests.unit.runtimes.bundle.installed import list_names


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def leave(temporary, name="stepdown-verify-left", age_s=3600):
    (temporary / name / "shared").mkdir(parents=True)
    then = (temporary / name).stat().st_mtime - age_s
    os.utime(temporary / name, (then, then))


def test_what_was_left_is_removed(temporary):
    leave(temporary)
    with scratch_folder("stepdown-verify-") as folder:
        assert list_names(temporary) == [folder.name]
    assert list_names(temporary) == []


def test_what_is_in_use_stays():
    with scratch_folder("stepdown-verify-") as folder:
        os.utime(folder, (0, 0))
        with scratch_folder("stepdown-verify-"):
            assert folder.is_dir()


@pytest.mark.parametrize(("name", "age_s"), [("stepdown-verify-young", 0), ("another", 3600)])
def test_what_is_young_or_not_ours_stays(temporary, name, age_s):
    leave(temporary, name, age_s)
    with scratch_folder("stepdown-verify-"):
        pass
    assert list_names(temporary) == [name]


def test_what_a_link_leads_to_stays(temporary):
    leave(temporary, "precious")
    (temporary / "stepdown-verify-link").symlink_to(temporary / "precious")
    with scratch_folder("stepdown-verify-"):
        pass
    assert list_names(temporary / "precious") == ["shared"]


def test_where_nothing_can_be_locked_nothing_is_removed(temporary, monkeypatch):
    leave(temporary)

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with scratch_folder("stepdown-verify-"):
        pass
    assert list_names(temporary) == ["stepdown-verify-left"]
