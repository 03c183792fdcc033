"""An unpacked bundle of its own for each test that spoils one, and bundles of one name for those that install."""

import shutil

import pytest

from runtimes.bundle.home import identify
from tests.unit.runtimes.bundle.real_bundle import write_home
from tests.unit.runtimes.serving.real_bundle import Maker


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


@pytest.fixture(scope="session")
def maker(tmp_path_factory):
    return Maker(tmp_path_factory.mktemp("made"))


@pytest.fixture
def bundle(maker, tmp_path):
    """Return a writer of bundles of one name: ``bundle(version)``."""

    def write(version=3, *variants, signatures=None, **changes):
        path = tmp_path / f"{version}.stepdown.tar.gz"
        return maker.write(path, *variants, signatures=signatures, version=version, **{"name": "tiny", **changes})

    return write


@pytest.fixture
def number(maker):
    """Return a function from a version to the id of the bundle that ``bundle(version)`` writes."""
    return lambda version: identify(maker.describe(version=version, name="tiny").to_bytes())


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"
