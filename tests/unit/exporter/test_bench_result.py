"""What is shown of a bench run."""

import io
import json
from dataclasses import replace

from rich.console import Console

from bench.recordings.recording import Accuracy, Conditions, Figures, OpTime, Throughput
from bench.report.facts import list_notices
from exporter.cli.bench_result import describe_recording, render_tables, tell_recording
from exporter.cli.outcome import format_json
from tests.unit.bench.made_recordings import make_recording


def make(**more):
    return make_recording({"float": {"1x8": 2e6, "8x8": 9e6}, "int8": {"1x8": 1e6, "8x8": 3e6}}, **more)


def show(recording):
    console = Console(width=200, record=True, file=io.StringIO())
    for table in render_tables(recording):
        console.print(table)
    return console.export_text()


def give(recording, label, **more):
    changed = tuple(replace(one, **more) if one.label == label else one for one in recording.subjects)
    return replace(recording, subjects=changed)


def test_the_table_has_everything_of_a_subject_once():
    recording = give(
        make(),
        "int8",
        figures=Figures(size_bytes=23_100_000, load_ns=(55_000_000,), peak_memory_bytes=112_000_000),
        accuracy=Accuracy(metric="spearman", value=0.8123, samples=50),
        throughput=(Throughput(shape="8x8", streams=4, runs=980, ns=10**9),),
    )
    text = show(recording)
    for shown in ("speed vs float", "23.1 MB", "112.0 MB", "55", "0.8123", "spearman", ", 4: 980"):
        assert text.count(shown) == 1, shown
    lines = [line for line in text.splitlines() if "int8" in line]
    assert len(lines) == 1
    assert "2.00" in lines[0]
    assert "UNSTABLE" not in text


def test_sentences_compare_with_the_reference_and_end_with_what_went_wrong():
    recording = replace(
        give(make(plan={"left_out": ["int8 by operator: no"]}), "int8", failure="it crashed\n  to fix: look"),
        conditions=Conditions(unstable=("the host took away 9%: measure again",)),
    )
    lines = list(tell_recording(recording))
    assert lines[0].startswith("float at 1x8: p50 2")
    assert lines[0].endswith("ms")
    assert lines[2].startswith("int8 at 1x8: p50 1")
    assert lines[2].endswith("times the speed of float")
    assert lines[4:] == [
        "failed: int8: it crashed",
        "left out: int8 by operator: no",
        "unstable: the host took away 9%: measure again",
    ]
    assert "UNSTABLE" in show(recording)


def test_what_is_worth_knowing_of_a_subject_is_told_with_its_name():
    noted = give(make(), "float", notes=("other kernels",))
    assert "note: float: other kernels" in list(tell_recording(noted))
    assert "float: other kernels" in [notice.text for notice in list_notices(noted, None)]


def test_a_subject_without_timings_is_shown_as_failed():
    recording = make_recording({"float": {"1x8": 1e6}, "gpu": {}}, failures={"gpu": "no GPU"})
    (line,) = (line for line in show(recording).splitlines() if "gpu" in line)
    assert "failed" in line


def test_few_rounds_show_no_bound():
    assert "[?, ?]" in show(make(rounds=3))
    assert "[?, ?]" not in show(make(rounds=30))


def test_the_longest_operators_are_shown_of_the_largest_shape():
    ops = tuple(
        OpTime(shape=shape, op=f"Op{number}", name=f"n{number}", module="encoder" if number else "", ns=number * scale)
        for shape, scale in (("1x8", 100), ("8x8", 1000))
        for number in range(20)
    )
    text = show(give(make(), "int8", ops=ops))
    assert "int8 at 8x8, by operator" in text
    assert "Op19" in text
    assert "10.0%" in text
    assert "Op9 " not in text


def test_the_document_is_strict_json_without_raw_samples():
    document = json.loads(format_json(describe_recording(make(rounds=1))))
    assert document["reference"] == "float"
    assert [row["label"] for row in document["results"]] == ["float", "float", "int8", "int8"]
    assert document["results"][2]["speed"]["high"] is None  # one round bounds nothing
    assert "answers" not in document["subjects"][0]
    assert document["conditions"]["unstable"] == []
