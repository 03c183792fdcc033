"""A folder that generates."""

import pytest

from tests.unit.runtimes.generation.tiny_decoder import write_export


@pytest.fixture
def folder(tmp_path):
    return write_export(tmp_path / "decoder")
