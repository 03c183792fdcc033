"""Programs are run to their end, and their failure is told."""

import sys

import pytest

from bench.peers.stepdown_cli import run_measured
from runtimes.errors import UnsupportedModel


def test_time_and_peak_memory_of_a_program():
    small = run_measured([sys.executable, "-c", "pass"])
    large = run_measured([sys.executable, "-c", "x = b'x' * 300_000_000"])
    assert small.seconds > 0
    assert large.peak_bytes - small.peak_bytes > 100_000_000


def test_a_failure_ends_with_what_the_program_said():
    with pytest.raises(UnsupportedModel, match=r"ended with 3: no such thing"):
        run_measured([sys.executable, "-c", "import sys; sys.stderr.write('no such thing'); sys.exit(3)"])
