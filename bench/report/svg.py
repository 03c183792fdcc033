"""A matplotlib figure as part of a page: an ``<svg>`` that takes fonts and colours from the page around it.

In: a painter, a size, a name and a description. Out: a :class:`Chart`. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from bench.report.palette import INK, MUTED, RULE, name_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# In CSS pixels. A chart is as wide as a phone; on a wide page several stand beside each other.
WIDTH = 320.0
FONT_SIZE = 12.0
SMALL_FONT_SIZE = 11.0

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
# The page's font is used, whatever matplotlib would have taken.
_FONT = re.compile(r"font-family:[^;]*;?\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Room around the plot, in CSS pixels."""

    left: float = 2.0
    right: float = 2.0
    top: float = 4.0
    bottom: float = 34.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """``svg`` is markup for a page; ``title`` is its accessible name, shown as its caption."""

    title: str
    description: str
    svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a chart says in words: its ``name`` in the page (letters and digits), its title and what it shows."""

    name: str
    title: str
    description: str


def draw_chart(words: Words, height: float, margins: Margins, paint: Callable[[Axes], None]) -> Chart:
    """Draw one chart.

    Args:
        words: Its name, title and description.
        height: Of the plot itself, in CSS pixels; the margins come on top.
        margins: Around the plot.
        paint: Draws into the axes, whose frame and ticks are bare.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    total = height + margins.top + margins.bottom
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The browser draws the text: what matplotlib's own font lacks is no loss.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        # Not the user's own settings: the same recording gives the same page everywhere.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS | {"svg.hashsalt": words.name})
        figure = Figure(figsize=(WIDTH / 72, total / 72), dpi=72)
        FigureCanvasSVG(figure)
        width = WIDTH - margins.left - margins.right
        box = (margins.left / WIDTH, margins.bottom / total, width / WIDTH, height / total)
        axes = figure.add_axes(box, facecolor="none")
        axes.spines[:].set_visible(False)
        paint(axes)
        target = io.BytesIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Chart(title=words.title, description=words.description, svg=adapt_svg(target.getvalue(), words))


# Any: matplotlib types the names of its settings in some releases and not in others.
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "font.size": FONT_SIZE,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": SMALL_FONT_SIZE,
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": SMALL_FONT_SIZE,
    "xtick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.color": RULE,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": SMALL_FONT_SIZE,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.solid_capstyle": "butt",
    "path.simplify": False,
}


def adapt_svg(drawn: bytes, words: Words) -> str:
    """Return matplotlib's SVG as markup that can stand in a page beside others like it."""
    root = ElementTree.fromstring(drawn)
    _remove_foreign(root)
    _rename_ids(root, words.name)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.tail = None
        if element.tag != "text":
            element.text = None
        for key in ("d", "x", "y", "transform"):
            if key in element.attrib:
                element.set(key, _LONG_NUMBER.sub(_shorten, element.attrib[key]))
        if "style" in element.attrib:
            element.set("style", name_colours(_FONT.sub("", element.attrib["style"])))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-label": words.title}
    description = ElementTree.Element("desc")
    description.text = words.description
    root.insert(0, description)
    return ElementTree.tostring(root, encoding="unicode")


def _remove_foreign(root: ElementTree.Element) -> None:
    """Remove metadata and style sheets: a style sheet in one chart is one of the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{_SVG}metadata", f"{_SVG}style"}:
                parent.remove(child)


def _rename_ids(root: ElementTree.Element, prefix: str) -> None:
    """Keep only the ids that are referred to, each with the chart's name before it: ids are unique in a page."""
    used = {element.attrib[_HREF][1:] for element in root.iter() if _HREF in element.attrib}
    for element in root.iter():
        used.update(found for value in element.attrib.values() for found in _REFERENCE.findall(value))
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in used:
            element.set("id", f"{prefix}-{identity}")
        if _HREF in element.attrib:
            element.set("href", f"#{prefix}-{element.attrib.pop(_HREF)[1:]}")
        for key, value in element.attrib.items():
            element.set(key, _REFERENCE.sub(rf"url(#{prefix}-\1)", value))


def _shorten(number: re.Match[str]) -> str:
    """A hundredth of a pixel is as exact as anyone sees."""
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")
