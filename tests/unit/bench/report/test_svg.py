"""Charts that can stand in a page: no foreign style, ids of their own, colours of the page."""

import re
from xml.etree import ElementTree

import numpy as np

from bench.report.latency import stack_dots
from bench.report.palette import ACCENT
from bench.report.svg import Margins, Words, draw_chart


def draw(name="one", label="<a> & $b$"):
    def paint(axes):
        axes.plot([1, 2], [1, 2], "o", color=ACCENT)
        axes.text(1, 1, label, fontsize=10)

    return draw_chart(Words(name=name, title='"t" <', description="d & e"), 50, Margins(), paint)


def test_it_takes_colours_and_fonts_from_the_page():
    svg = draw().svg
    assert "var(--accent)" in svg
    assert "font-family" not in svg
    assert "<style" not in svg
    assert "metadata" not in svg
    colours = set(re.findall(r"#[0-9a-f]{6}", svg))
    assert colours == set(), colours


def test_it_is_well_formed_named_and_escaped():
    root = ElementTree.fromstring(draw().svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == '"t" <'
    assert root[0].text == "d & e"
    assert "<a> & $b$" in [element.text for element in root.iter("text")]


def test_ids_carry_the_name_and_are_referred_to():
    first, second = (ElementTree.fromstring(draw(name).svg) for name in ("one", "two"))
    ids = [{e.attrib["id"] for e in root.iter() if "id" in e.attrib} for root in (first, second)]
    assert ids[0]
    assert all(identity.startswith("one-") for identity in ids[0])
    assert ids[0].isdisjoint(ids[1])
    assert {e.attrib["href"][1:] for e in first.iter("use")} <= ids[0]


def test_signs_that_the_font_lacks_do_not_warn():
    assert "模型 🦙 مرحبا" in draw(label="模型 🦙 مرحبا").svg


def test_dots_of_one_place_stand_beside_each_other():
    offsets = stack_dots(np.array([10.0, 10.1, 10.2, 50.0]))
    assert offsets[3] == 0
    assert len(set(offsets[:3])) == 3
    assert sum(offsets[:3]) == 0


def test_many_dots_stay_within_the_cloud():
    offsets = stack_dots(np.full(5000, 10.0))
    assert abs(offsets).max() <= 15.01
