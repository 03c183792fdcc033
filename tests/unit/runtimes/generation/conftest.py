"""A folder that generates."""

import pytest

from runtimes.generation.generator import open_generator
from tests.unit.runtimes.generation.tiny_decoder import write_export


@pytest.fixture
def folder(tmp_path):
    return write_export(tmp_path / "decoder")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The same, for all tests of a module: not to be changed."""
    return write_export(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def generator(home):
    """What :func:`home` holds, open."""
    with open_generator(home, threads=1) as opened:
        yield opened
