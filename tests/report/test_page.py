"""The report as a reader has it: in a browser, on a phone and on a desk, in the dark, on paper, without scripts."""

import dataclasses

import msgspec
import pytest

from bench.recordings.recording import Conditions, Recording
from bench.report.document import write_report
from tests.report.made_recording import SHAPES, SPEEDS, make_gate, make_history, make_recording

TROUBLE = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
HOSTILE = (
    "</script><script>window.broken = 1</script>",
    '"><img src=x onerror="window.broken = 1">',
    "$\\frac{x}{$ {{ 7 * 7 }} & <b>",
    "\u202eright to left\u0000 and\n\x1b[31mcontrol",
    "a-very-long-name-without-a-break-" * 9,
)

# Every element in which text stands, with its colour, what is behind it, and its size.
CONTRASTS = """(() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0) return colour;
    }
    return [255, 255, 255, 1];
  };
  const light = (c) => { const [r, g, b] = c.map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 :
    ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('script, desc')) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.closest('svg') ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), walker.currentNode.data.trim()]);
  }
  return found;
})()"""

# What reaches beyond the window, charts' texts included; a wide table may scroll by itself.
OVERFLOWING = """[...document.querySelectorAll('body *')]
  .filter((e) => e.checkVisibility() && !e.closest('.table'))
  .filter((e) => e.getBoundingClientRect().right > WIDTH + 1 || e.getBoundingClientRect().left < -1)
  .map((e) => e.tagName + ' ' + e.textContent.slice(0, 60))"""


@pytest.fixture(scope="module")
def bench_page(tmp_path_factory):
    """Everything that a bench run can show."""
    unstable = Conditions(probe_gflops=(306.0, 190.0), unstable=("the probe fell: measure again",))
    path = tmp_path_factory.mktemp("bench") / "out.html"
    write_report(path, make_recording(conditions=unstable), history=make_history(runs=12, step_at=7))
    return path


@pytest.fixture(scope="module")
def gate_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("gate") / "out.html"
    recording = make_recording(labels=("fp32", "int8-static"), conditions=Conditions(unstable=("the probe fell",)))
    write_report(path, recording, gate=make_gate())
    return path


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "out.html"
    write_report(path, make_hostile())
    return path


def make_hostile():
    """A recording in which every text that comes from outside is hostile."""
    labels = dict(zip(SPEEDS, HOSTILE, strict=False))
    made = make_recording()
    shapes = dict(zip(SHAPES, HOSTILE[2:], strict=True))

    def rename(record):
        ops = [
            {**dataclasses.asdict(op), "shape": shapes[op.shape], "module": HOSTILE[4], "op": HOSTILE[0]}
            for op in record.ops
        ]
        throughput = [{**dataclasses.asdict(one), "shape": shapes[one.shape]} for one in record.throughput]
        return {**dataclasses.asdict(record), "label": labels[record.label], "failure": HOSTILE[1], "ops": ops} | {
            "throughput": throughput,
            "accuracy": {"metric": HOSTILE[2], "value": 0.5, "samples": 3},
        }

    return msgspec.convert(
        {
            **dataclasses.asdict(made),
            "subjects": [rename(record) for record in made.subjects],
            "timings": [
                {**dataclasses.asdict(one), "label": labels[one.label], "shape": shapes[one.shape]}
                for one in made.timings
            ],
            "machine": {HOSTILE[0]: HOSTILE[1], "cpu": HOSTILE[3], "versions": {HOSTILE[1]: HOSTILE[2]}},
            "conditions": {"unstable": list(HOSTILE)},
            "commit": HOSTILE[1],
            "started": HOSTILE[0],
            "run": HOSTILE[4],
            "plan": {HOSTILE[4]: HOSTILE[4]},
        },
        Recording,
    )


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_loaded_complains_or_overflows(show, bench_page, width):
    page = show(bench_page, width=width)
    assert page.list_events(*TROUBLE) == []
    requests = [event["request"]["url"] for event in page.list_events("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOWING.replace("WIDTH", str(width))) == []
    tables = "[...document.querySelectorAll('.table')].every((e) => e.scrollWidth <= e.clientWidth)"
    assert page.evaluate(tables) is (width != 768)


@pytest.mark.parametrize("width", [360, 1280])
def test_hostile_labels_stay_text(show, hostile_page, width):
    page = show(hostile_page, width=width)
    assert page.evaluate("window.broken") is None
    assert page.list_events(*TROUBLE) == []
    assert page.evaluate("document.querySelectorAll('img, main script, b').length") == 0
    text = page.evaluate("document.body.innerText")
    assert HOSTILE[0] in text
    assert HOSTILE[1] in text
    assert "{{ 7 * 7 }}" in text
    assert "\u202e" not in text
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOWING.replace("WIDTH", str(width))) == []


def test_a_gate_comes_first(show, gate_page):
    page = show(gate_page, width=360)
    assert page.evaluate("document.querySelector('h1').innerText").startswith("branch is slower")
    assert page.evaluate("document.querySelector('h2').innerText") == "Verdict"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    notices = page.evaluate("document.querySelector('.notices').innerText")
    assert notices.index("Unstable") < notices.index("Measured on 2 shapes")


def read_column(page, column):
    return page.evaluate(
        f"[...document.querySelector('table.data').tBodies[0].rows].map((r) => r.cells[{column}].innerText.trim())"
    )


def click(page, column):
    page.evaluate(f"document.querySelectorAll('table.data thead th')[{column}].querySelector('button').click()")


@pytest.mark.parametrize("width", [360, 1280])
def test_tables_sort_up_and_down(show, bench_page, width):
    page = show(bench_page, width=width)
    shuffled = [float(text.split()[-1]) for text in read_column(page, 2)]
    click(page, 2)
    ascending = [float(text.split()[-1]) for text in read_column(page, 2)]
    assert ascending == sorted(shuffled) != shuffled
    assert page.evaluate("document.querySelector('[aria-sort]').ariaSort") == "ascending"
    click(page, 2)
    assert [float(text.split()[-1]) for text in read_column(page, 2)] == ascending[::-1]
    click(page, 0)
    names = read_column(page, 0)
    assert names == sorted(names)
    assert page.evaluate("document.querySelectorAll('table.data')[0].querySelectorAll('[aria-sort]').length") == 1


def test_what_was_not_measured_sorts_last_either_way(show, bench_page):
    page = show(bench_page)
    rows = "[...document.querySelectorAll('table.data')[1].tBodies[0].rows].map((r) => r.cells[0].innerText.trim())"
    button = (
        "[...document.querySelectorAll('table.data')[1].querySelectorAll('button')].find((b) => b.innerText == 'Nodes')"
    )
    for _ in range(2):
        page.evaluate(f"{button}.click()")
        assert page.evaluate(rows)[-1] == "torch-eager"


def test_a_header_sorts_by_the_keyboard(show, bench_page):
    page = show(bench_page)
    page.evaluate("document.querySelectorAll('table.data thead button')[2].focus()")
    page.press("Enter", "\r")
    assert page.evaluate("document.querySelector('[aria-sort]').innerText").startswith("p50")


@pytest.mark.parametrize("width", [360, 1280])
def test_every_number_is_there_without_scripts(show, bench_page, width):
    with_scripts = show(bench_page, width=width)
    without = show(bench_page, width=width, scripts=False)
    read = "[...document.querySelectorAll('tbody tr')].map((r) => r.innerText)"
    assert without.evaluate(read) == with_scripts.evaluate(read)
    assert without.evaluate("document.querySelectorAll('button').length") == 0
    assert without.evaluate("document.querySelectorAll('svg').length") > 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_text_stands_out_in_both_schemes(show, bench_page, gate_page, scheme, width):
    for path in (bench_page, gate_page):
        found = show(path, scheme=scheme, width=width).evaluate(CONTRASTS)
        assert len(found) > 150
        assert [(ratio, text) for ratio, text in found if ratio < 4.5] == []


def test_the_schemes_differ_and_paper_is_white(show, bench_page):
    colour = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('svg text')).fill"
    looks = [{"scheme": "light"}, {"scheme": "dark"}, {"scheme": "dark", "media": "print"}]
    pages = [show(bench_page, **look) for look in looks]
    light, dark, paper = ((page.evaluate(colour), page.evaluate(ink)) for page in pages)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    assert paper[0] == "rgb(255, 255, 255)"
    assert paper[1] != dark[1]


def test_charts_have_names_and_descriptions(show, bench_page):
    page = show(bench_page)
    images = page.list_accessible("image")
    drawn = page.evaluate("[...document.querySelectorAll('svg')].filter((e) => e.checkVisibility()).length")
    assert len(images) == drawn > 10
    assert all(name and description for name, description in images)
    assert any("median 5.2" in description for _, description in images)


@pytest.mark.parametrize("width", [360, 1280])
def test_tables_are_tables_to_a_screen_reader(show, bench_page, width):
    """Cards are laid out with grids, which would hide that they are rows."""
    page = show(bench_page, width=width)
    assert len(page.list_accessible("table")) >= 3
    assert len(page.list_accessible("rowheader")) > len(SPEEDS) * len(SHAPES)
    assert any(name == "p90, ms" or name.startswith("p90") for name, _ in page.list_accessible("columnheader"))


def test_ids_are_unique_and_found(show, bench_page, gate_page):
    for path in (bench_page, gate_page):
        page = show(path)
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(ids) == len(set(ids)) > 10
        used = set(page.evaluate("[...document.querySelectorAll('use')].map((e) => e.getAttribute('href').slice(1))"))
        assert used - set(ids) == set()
