"""Writing beside and renaming: the old state or the new one, never half of one."""

import errno

import pytest

from runtimes.atomic import explain_no_room, new_directory, write_bytes, write_text
from runtimes.errors import OutputError, UsageError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path):
    write_text(tmp_path / "f", "old")
    write_bytes(tmp_path / "f", b"new")
    assert ((tmp_path / "f").read_text(), names(tmp_path)) == ("new", ["f"])


@pytest.mark.parametrize("place", ["absent/f", "file/f", "folder", "n" * 300])
def test_a_file_with_no_place_is_an_output_error(tmp_path, place):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"cannot be written.*\n.*choose another place"):
        write_bytes(tmp_path / place, b"x")
    assert names(tmp_path) == ["file", "folder"]


def test_a_new_directory_appears_whole(tmp_path):
    with new_directory(tmp_path / "deep" / "out", force=False) as staging:
        (staging / "f").write_text("x")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out") == ["f"]


def test_an_existing_directory_needs_force(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="--force"), new_directory(tmp_path / "out", force=False):
        pytest.fail("nothing may be written")


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_force_replaces_what_was_there(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "directory":
        out.mkdir()
        (out / "stale").write_text("x")
    else:
        out.write_text("x")
    with new_directory(out, force=True) as staging:
        (staging / "new").write_text("y")
    assert (names(tmp_path), names(out)) == (["out"], ["new"])


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, ValueError])
def test_any_failure_leaves_what_was_there(tmp_path, failure):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")

    def work() -> None:
        with new_directory(tmp_path / "out", force=True) as staging:
            (staging / "half").write_text("y")
            raise failure

    with pytest.raises(failure):
        work()
    assert (names(tmp_path), names(tmp_path / "out")) == (["out"], ["precious"])


def test_a_full_disk_while_filling_is_an_output_error(tmp_path):
    def work() -> None:
        with new_directory(tmp_path / "out", force=False):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="no room left"):
        work()
    assert names(tmp_path) == []


def test_an_unreadable_input_is_not_taken_for_the_output(tmp_path):
    def work() -> None:
        with new_directory(tmp_path / "out", force=False):
            (tmp_path / "absent").read_bytes()

    with pytest.raises(FileNotFoundError):
        work()


def test_an_interrupt_between_the_two_renames_puts_the_old_one_back(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    rename = type(tmp_path).rename

    def interrupt(self, target):
        if self.name.startswith(".out.") and ".old" not in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", interrupt)

    def work() -> None:
        with new_directory(tmp_path / "out", force=True):
            pass

    with pytest.raises(KeyboardInterrupt):
        work()
    assert (names(tmp_path), names(tmp_path / "out")) == (["out"], ["precious"])


def test_other_errors_are_not_about_room(tmp_path):
    assert explain_no_room(OSError(errno.EIO, "I/O error"), tmp_path) is None
