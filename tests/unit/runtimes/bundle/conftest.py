"""An unpacked bundle of its own for each test that spoils one."""

import shutil

import pytest

from tests.unit.runtimes.bundle.real_bundle import write_home


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    home = tmp_path_factory.mktemp("whole")
    write_home(home)
    return home


@pytest.fixture
def home(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "home")


@pytest.fixture
def variant(home):
    return home / "variants" / "here"
