"""The cache of archives: unpacked once, nothing half-done stays, no link is followed."""

import shutil

import pytest

from runtimes.bundle.home import check_files
from runtimes.bundle.trust import Trust
from runtimes.bundle.unpacked import unpack_to_cache
from tests.unit.runtimes.serving.real_bundle import Maker


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path):
    return Maker(tmp_path).write(tmp_path / "1.stepdown.tar.gz", version=1)


def test_what_a_killed_process_left_is_removed_by_the_next_that_unpacks(archive, cache, monkeypatch):
    """Killed: nothing of its own cleans up after it."""
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr("runtimes.bundle.unpacked.check_contents", stop)
    with pytest.raises(KeyboardInterrupt):
        unpack_to_cache(archive, Trust(), cache)
    assert len(list(cache.iterdir())) == 2
    monkeypatch.undo()
    home = unpack_to_cache(archive, Trust(), cache)
    assert {path.name for path in cache.iterdir()} == {".lock", home.id}
    check_files(home)


def stop(*_):
    raise KeyboardInterrupt


def test_a_link_in_the_place_of_what_is_unpacked_is_replaced(archive, cache, tmp_path):
    home, elsewhere = unpack_to_cache(archive, Trust(), cache), tmp_path / "elsewhere"
    home.path.rename(elsewhere)
    home.path.symlink_to(elsewhere)
    again = unpack_to_cache(archive, Trust(), cache)
    assert again.path == home.path
    assert not home.path.is_symlink()
    assert (elsewhere / "bundle.json").is_file()
