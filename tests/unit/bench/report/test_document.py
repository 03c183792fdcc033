"""The page as text: the same for the same recording, whole for any recording, clear where it cannot be made."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.recordings.recording import Conditions, SubjectRecord, Timing
from bench.report.document import render_report, write_report
from runtimes.errors import DataError, MissingDependency, OutputError
from tests.report.made_recording import MACHINE, SPEEDS, make_gate, make_history, make_recording

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def recording():
    return make_recording(labels=("fp32", "int8-static"))


def read_text(page):
    """Return what a reader sees, tags removed."""
    return re.sub(r"<[^>]+>", " ", page.split("</style>", 1)[1])


def read_headline(page):
    return re.search(r"<title>(.*?)</title>", page).group(1)


def test_the_same_recording_gives_the_same_page(recording, tmp_path):
    """Also in another process, with other hashes and other settings of matplotlib."""
    (tmp_path / "matplotlibrc").write_text("font.size: 30\naxes.facecolor: red\nsvg.fonttype: path\n")
    code = (
        "import sys; from bench.report.document import render_report; from tests.report.made_recording import *;"
        "sys.stdout.buffer.write(render_report(make_recording(labels=('fp32', 'int8-static'))).encode())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(tmp_path), "TZ": "Asia/Tokyo"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert done.stdout.decode() == render_report(recording)


def test_nothing_points_outside(recording):
    page = render_report(recording, gate=make_gate(), history=make_history(runs=8, step_at=4))
    links = re.findall(r"""(?:src|href|action)\s*=\s*["']([^"']*)""", page)
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    assert re.findall(r"url\((?!#)", page) == []
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_figures_are_in_the_text(recording):
    text = read_text(render_report(recording))
    for found in ("p50", "int8-static", "23.1 MB", "0.7256", "140.0 MB", "Intel(R) Xeon(R)", "onnxruntime", "1.31.1"):
        assert found in text


def test_the_headline_is_the_finding(recording):
    assert read_headline(render_report(recording)) == "int8-static is 2.4 times as fast as fp32"
    slower = make_recording(labels=("fp32", "torch-eager"))
    assert read_headline(render_report(slower)) == "Nothing is as fast as fp32"
    alone = make_recording(labels=("fp32",))
    assert re.fullmatch(r"fp32 takes 1\.\d\d ms at 1x16", read_headline(render_report(alone)))


@pytest.mark.parametrize(
    ("verdict", "headline"),
    [
        ("slower", "branch is slower: it takes 10\u202f% longer than main"),
        ("inconclusive", "branch against main: inconclusive"),
        ("same", "branch is not slower than main, but grew: nodes"),
    ],
)
def test_the_headline_of_a_gate(recording, verdict, headline):
    assert read_headline(render_report(recording, gate=make_gate(verdict))) == headline


def test_the_headline_of_a_gate_that_passes(recording):
    same = dataclasses.replace(make_gate("same"), figures=())
    assert read_headline(render_report(recording, gate=same)) == "branch is as fast as main, within 5\u202f%"


def test_what_disturbed_and_what_failed_comes_first(recording):
    failed = SubjectRecord(label="trt", runtime="onnxruntime", device="tensorrt", model="m", failure="no such provider")
    disturbed = dataclasses.replace(
        recording,
        subjects=(*recording.subjects, failed),
        conditions=Conditions(unstable=("steal: move",)),
        plan={"left_out": ["2 streams: no"]},
    )
    text = read_text(render_report(disturbed))
    assert text.count("2 streams: no") == 1
    assert text.index("Left out: 2 streams: no") < text.index("Latency")
    assert text.index("Unstable: steal: move") < text.index("trt failed: no such provider") < text.index("Latency")


def test_history_says_where_the_step_is():
    history = make_history(runs=12, step_at=7)
    page = render_report(history[-1], history=history[:-1])
    text = read_text(page)
    assert "newest 12 runs" in text
    assert f"since {history[7].commit[:10]}" in text
    assert text.count(history[7].started[:10]) >= len(SPEEDS) - 1
    assert "no step" in read_text(render_report(history[6], history=history[:6]))


def test_other_machines_are_no_history():
    here = make_recording(labels=("fp32", "int8-static"))
    there = make_recording(seed=1, labels=("fp32", "int8-static"), machine={**MACHINE, "cpu": "other"})
    assert "History" not in read_text(render_report(here, history=[there, here]))


@pytest.mark.parametrize("rounds", [1, 2])
def test_few_rounds_have_open_bounds_but_a_page(recording, rounds):
    short = tuple(dataclasses.replace(timing, ns=timing.ns[:rounds]) for timing in recording.timings)
    assert "\N{MULTIPLICATION SIGN}" in read_text(render_report(dataclasses.replace(recording, timings=short)))


def test_one_run_each_and_all_runs_equal():
    subjects = tuple(SubjectRecord(label=label, runtime="torch", device="cpu", model="m") for label in "ab")
    timings = tuple(Timing(label=label, shape="1x1", ns=((1000,),)) for label in "ab")
    page = render_report(make_recording(subjects=subjects, timings=timings, conditions=Conditions()))
    assert "1.0" in read_text(page)


def test_a_subject_without_timings_is_still_told_of(recording):
    page = render_report(dataclasses.replace(recording, timings=()))
    assert read_headline(page) == "Nothing could be timed"
    assert "23.1 MB" in read_text(page)


def test_blocks_that_do_not_pair_are_an_error(recording):
    uneven = (dataclasses.replace(recording.timings[0], ns=recording.timings[0].ns[:-1]), *recording.timings[1:])
    with pytest.raises(DataError, match="do not pair"):
        render_report(dataclasses.replace(recording, timings=uneven))


def test_a_file_that_cannot_be_written_is_an_error(recording, tmp_path):
    with pytest.raises(OutputError):
        write_report(tmp_path / "none" / "out.html", recording)
    write_report(tmp_path / "out.html", recording)
    assert (tmp_path / "out.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = (
        "import sys, bench.report.document\n"
        "assert not {'matplotlib', 'jinja2', 'torch', 'onnxruntime'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_missing_packages_are_named_with_the_extra(monkeypatch, recording, tmp_path):
    monkeypatch.setattr("bench.report.document.find_spec", lambda name: None if name == "matplotlib" else object())
    with pytest.raises(MissingDependency, match=r"stepdown\[report\]"):
        write_report(tmp_path / "out.html", recording)
    assert not (tmp_path / "out.html").exists()
