"""The lock of a folder: one at a time, and never through a link."""

import threading

import pytest

from runtimes.bundle.lock import locked
from runtimes.errors import OutputError


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path, is_there):
    precious, folder = tmp_path / "precious", tmp_path / "folder"
    folder.mkdir()
    if is_there:
        precious.write_text("precious")
    (folder / ".lock").symlink_to(precious)
    with pytest.raises(OutputError, match="is a link") as caught, locked(folder):
        pass
    assert (caught.value.where, bool(caught.value.cure)) == (str(folder / ".lock"), True)
    assert precious.exists() == is_there
    assert not is_there or precious.read_text() == "precious"


def test_a_folder_in_the_place_of_the_lock_is_said(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(OutputError, match="is a folder") as caught, locked(tmp_path):
        pass
    assert (caught.value.where, bool(caught.value.cure)) == (str(tmp_path / ".lock"), True)


def test_who_waited_for_a_lock_that_was_removed_waits_for_the_next_one(tmp_path):
    held = []

    def come():
        with locked(tmp_path):
            held.append((tmp_path / ".lock").exists())

    second = threading.Thread(target=come)
    with locked(tmp_path):
        second.start()
        second.join(0.1)
        (tmp_path / ".lock").unlink()
    second.join()
    assert held == [True]


def test_what_is_in_the_lock_stays(tmp_path):
    """It may be a second name of a file that is of use."""
    (tmp_path / ".lock").write_text("precious")
    with locked(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "precious"


def test_who_comes_second_waits_for_the_first(tmp_path):
    order = []

    def come():
        with locked(tmp_path):
            order.append("second")

    second = threading.Thread(target=come)
    with locked(tmp_path):
        second.start()
        second.join(0.1)
        order.append("first")
    second.join()
    assert order == ["first", "second"]
