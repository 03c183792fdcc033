import os
import sys
from pathlib import Path

import pytest

from bench.suites.bundle import start
from bench.suites.bundle.environments import Environment, measure_tree
from bench.suites.bundle.repeat import Packed, pack_repeatedly
from bench.suites.bundle.start import Start, Subject, measure_starts
from bench.suites.bundle.tables import PLAIN, REFERENCE, SERVED, render
from runtimes.errors import MissingDependency, SubjectFailed, UnsupportedModel
from tests.unit.exporter.packing.tiny_export import write_export

PROGRAM = "import sys\nvector = [float(sys.argv[2]), float(len(sys.argv[3]))]\n" + start._END
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is the kernel's")


def make_subject(program=PROGRAM):
    return Subject(python=Path(sys.executable), program=program, model=Path("model"))


def test_every_subject_starts_once_a_round_and_tells_its_peak():
    starts = measure_starts({"a": make_subject(), "b": make_subject()}, rounds=2, threads=3)
    assert {name: len(found) for name, found in starts.items()} == {"a": 2, "b": 2}
    one = starts["a"][0]
    assert one.vector == (3.0, float(len(start.TEXT)))
    assert one.seconds > 0
    assert one.peak_bytes > 1_000_000


def test_a_program_that_ends_without_an_answer_is_named():
    with pytest.raises(SubjectFailed, match="ZeroDivisionError") as failed:
        measure_starts({"broken": make_subject("1 / 0")}, rounds=1, threads=1)
    assert failed.value.where == "broken"


@pytest.fixture
def repeat():
    """``pack_repeatedly``, or a skip where clock or locale stay; STEPDOWN_REQUIRE=clocks makes that a failure."""

    def call(export, **changes):
        try:
            return pack_repeatedly(export, **changes)
        except MissingDependency as error:
            if "clocks" in os.environ.get("STEPDOWN_REQUIRE", ""):
                raise
            pytest.skip(str(error))

    return call


def test_packing_repeats_from_other_places(tmp_path, repeat):
    packed = repeat(write_export(tmp_path / "films"), count=2, options=("--device", "x86-64-avx2"))
    assert len({one.sha256 for one in packed}) == 1
    assert len({str(one.conditions) for one in packed}) == 2


@pytest.mark.parametrize(("programs", "says"), [({}, "faketime"), ({"faketime": "", "locale": "echo C"}, "tr_TR")])
def test_what_cannot_be_varied_is_missed(tmp_path, monkeypatch, programs, says):
    """A locale that is not installed is taken for C, and then the packs differ in less than is said."""
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match=says):
        pack_repeatedly(write_export(tmp_path / "films"), count=1)


def test_a_pack_that_fails_says_why(tmp_path, repeat):
    with pytest.raises(UnsupportedModel, match="toaster"):
        repeat(write_export(tmp_path / "films"), count=1, options=("--device", "toaster"))


def test_a_tree_weighs_what_its_files_do(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"123")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "one")
    assert measure_tree(tmp_path) == 3


def make_start(seconds, vector=(1.0, 0.0)):
    return Start(seconds=seconds, peak_bytes=50_000_000, vector=vector)


def test_the_tables_say_what_is_missed_and_how_many_times():
    starts = {SERVED: [make_start(0.5)], PLAIN: [make_start(1.0)], REFERENCE: [make_start(5.0)]}
    environments = {"device": Environment(python=Path("python"), size_bytes=100_000_000, packages=("numpy==2",))}
    conditions = {"clock": "as it is"}
    packed = [Packed(conditions=conditions, sha256=digit * 64, size_bytes=1) for digit in "ab"]
    text = render({"small": (10, 20), "large": (30, 20)}, environments, starts, packed)
    assert "MISSED: 2 different bundles" in text
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert "met" in rows["small"]
    assert "MISSED" in rows["large"]
    assert "10.0" in rows[SERVED]
    assert "100 |" in rows["device"]


def test_what_was_not_measured_has_no_table():
    assert render({}, {}, {}, ()) == ""
