"""Bundles that run, and a cache of their own."""

import pytest

from tests.unit.runtimes.serving.real_bundle import Maker


@pytest.fixture
def maker(tmp_path):
    return Maker(tmp_path)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
