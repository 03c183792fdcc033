"""Markdown, JUnit and annotations: complete, escaped, and never a pass for what is none."""

import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from bench.ci.annotations import render_annotations
from bench.ci.findings import describe_error, format_change, list_findings, summarise
from bench.ci.junit import render_junit
from bench.ci.markdown import render_markdown, render_markdown_error
from bench.gating.verdict import FigureVerdict, GateResult, ShapeVerdict
from runtimes.errors import Inconclusive, ParityFailure

SAME = ShapeVerdict(
    shape="1x8", verdict="same", ratio=1.01, low=0.99, high=1.03, rounds=42, base_ns=5.0e6, head_ns=4.95e6
)
SLOWER = ShapeVerdict(
    shape="8x8", verdict="slower", ratio=0.88, low=0.86, high=0.9, rounds=42, base_ns=20e6, head_ns=22.7e6
)
OPEN = ShapeVerdict(
    shape="9x9", verdict="inconclusive", ratio=1.0, low=0.0, high=math.inf, rounds=1, base_ns=1e3, head_ns=1e3
)
GROWN = FigureVerdict(name="size_bytes", base=100_000_000, head=101_000_000, change=0.01, allowed=0.0, ok=False)
FITS = FigureVerdict(name="nodes", base=10, head=10, change=0.0, allowed=0.0, ok=True)
RESULT = GateResult(
    base="old",
    head="new",
    verdict="slower",
    max_regression=0.05,
    confidence=0.99,
    interleaved=True,
    shapes=(SAME, SLOWER, OPEN),
    figures=(GROWN, FITS),
    differences=("cpu: A -> B",),
    notes=("read this",),
)
HOSTILE = "a|b`c`<img src=x>&\n::error::*x* ]] > \x00\u202e%"


def test_findings_say_what_changed_and_by_how_much():
    messages = {one.name: (one.status, one.message) for one in list_findings(RESULT)}
    assert messages["8x8"] == ("failed", "slower: 20.00 ms -> 22.70 ms, +13.6% (bound +11.1% to +16.3%, 42 rounds)")
    assert messages["9x9"][0] == "undecided"
    assert "bound open to open" in messages["9x9"][1]
    assert messages["size"] == ("failed", "above the limit: 100.0 MB -> 101.0 MB, +1.0% (no growth allowed)")
    assert messages["nodes"][0] == messages["1x8"][0] == "passed"


def test_the_summary_names_what_decided():
    assert summarise(RESULT).startswith("8x8: slower")
    assert "1x8" not in summarise(RESULT)
    assert summarise(replace(RESULT, verdict="inconclusive", shapes=(OPEN,), figures=())).startswith(
        "9x9: inconclusive"
    )
    assert summarise(replace(RESULT, verdict="same", shapes=(SAME,), figures=())) == "same: new against old"


@pytest.mark.parametrize(("ratio", "said"), [(1.0, "+0.0%"), (0.5, "+100.0%"), (2.0, "-50.0%"), (0.0, "open")])
def test_a_ratio_becomes_a_change_of_time(ratio, said):
    assert format_change(ratio) == said


def test_junit_counts_and_carries_every_finding():
    suites = ElementTree.fromstring(render_junit(list_findings(RESULT)))
    (suite,) = suites
    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "5",
        "failures": "2",
        "errors": "1",
    }
    kinds = {case.get("name"): case[0].tag for case in suite}
    assert kinds == {"1x8": "system-out", "8x8": "failure", "9x9": "error", "size": "failure", "nodes": "system-out"}
    assert "+13.6%" in next(case for case in suite if case.get("name") == "8x8")[0].get("message")


@pytest.mark.parametrize(
    ("error", "status"), [(ParityFailure("they differ"), "error"), (Inconclusive("?"), "undecided")]
)
def test_a_gate_that_could_not_judge_is_no_pass_anywhere(error, status):
    finding = describe_error(error)
    assert finding.status == status
    (suite,) = ElementTree.fromstring(render_junit([finding]))
    assert (suite.get("errors"), suite[0][0].tag) == ("1", "error")
    assert len(render_annotations([finding])) == 1
    assert type(error).__name__ in render_markdown_error(error)


def test_annotations_are_one_escaped_line_each():
    lines = render_annotations(list_findings(RESULT))
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::error"]
    assert lines[0].startswith("::error title=stepdown gate%3A 8x8::slower: 20.00 ms")
    assert "+13.6%25" in lines[0]
    assert render_annotations(list_findings(replace(RESULT, shapes=(SAME,), figures=()))) == ()


def test_markdown_has_every_number_and_note():
    text = render_markdown(RESULT)
    assert text.startswith("### stepdown gate: slower and larger\n\nnew against old; a slowdown of 5.0% must not pass")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert ["8x8", "20.00 ms", "22.70 ms", "+13.6%", "+11.1% to +16.3%", "42", "slower"] in rows
    assert ["size", "100.0 MB", "101.0 MB", "+1.0%", "+0.0%", "too large"] in rows
    assert "**The machines differ**\n\n- cpu: A -\\> B" in text
    assert "**Notes**\n\n- read this" in text


def test_a_result_that_only_grew_does_not_read_like_a_pass():
    assert "same but larger" in render_markdown(replace(RESULT, verdict="same", shapes=(SAME,)))


def test_hostile_labels_act_nowhere():
    shape = replace(SLOWER, shape=HOSTILE)
    result = replace(RESULT, base=HOSTILE, head=HOSTILE, shapes=(shape,), notes=(HOSTILE,))
    findings = list_findings(result)
    text = render_markdown(result)
    assert "<img" not in text.replace("\\<img", "")
    assert all(len(line.replace("\\|", "").split("|")) == 9 for line in text.splitlines() if "ms" in line)
    assert not any(line.startswith("::") for line in text.splitlines())
    annotations = render_annotations(findings)
    assert all("\n" not in line and line.startswith("::error title=stepdown gate%3A ") for line in annotations)
    case = ElementTree.fromstring(render_junit(findings))[0][0]
    assert case.get("name").startswith("a|b`c`<img src=x>&")


def test_the_outputs_are_the_same_each_time():
    assert render_junit(list_findings(RESULT)) == render_junit(list_findings(RESULT))
    assert render_markdown(RESULT) == render_markdown(RESULT)
