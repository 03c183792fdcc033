"""Tolerances are data with reasons."""

import tomllib
from pathlib import Path

import pytest

import exporter
from exporter.tolerances import read_tolerance
from runtimes.errors import UsageError

ROWS = tomllib.loads((Path(exporter.__file__).parent / "tolerances.toml").read_text())


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_a_tolerance_with_a_reason(name):
    tolerance = read_tolerance(name)
    assert 0 < tolerance.atol < 1
    assert 0 <= tolerance.rtol < 1
    assert len(tolerance.reason) > 40


def test_unknown_row_lists_the_known_ones():
    with pytest.raises(UsageError, match="no tolerance is named 'x'") as caught:
        read_tolerance("x")
    assert all(name in str(caught.value) for name in ROWS)
