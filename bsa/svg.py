"""A few shapes of SVG, written by hand: the whole dependency of the pictures.

A Drawing collects elements as text, in painting order; finished, it is a Picture: a file of its own,
or a fragment for a page. Coordinates are rounded to a tenth of a unit, which no eye can see and which
keeps pictures small.

Text and lines have the colour of their surroundings (`currentColor`), so a fragment fits into a
light page and into a dark one; a file brings both grounds, and takes the one its viewer prefers.
"""

from dataclasses import dataclass
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from bsa.units import marked

FONT = "'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif"

_GROUNDS = (
    "svg{color:#1f2933}.ground{fill:#fff}"
    "@media (prefers-color-scheme:dark){svg{color:#e4e7eb}.ground{fill:#16191d}}"
)


class Paint(NamedTuple):
    """What a shape is filled or stroked with."""

    colour: str
    opacity: float = 1


INK = Paint("currentColor")
FAINT_INK = Paint("currentColor", 0.72)
GRID = Paint("currentColor", 0.15)


def number(value):
    """A coordinate as the shortest text."""
    return f"{value:.1f}".removesuffix(".0")


def text_width(text, size):
    """About how wide `text` is: fonts differ, so callers leave some room."""
    return 0.56 * size * len(text)


class Drawing:
    """Elements of one picture, in the order in which they are painted.

    `title`, where a shape has one, is what a pointer held over it shows.
    """

    def __init__(self):
        self._elements = []

    def rect(self, x, y, width, height, fill, *, radius=0, title=None):
        self._add("rect", title, x=x, y=y, width=width, height=height, fill=fill, rx=radius)

    def line(self, x1, y1, x2, y2, stroke, *, width=1, dash=None):
        ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
        self._add("line", None, **ends, stroke=stroke, stroke_width=width, stroke_dasharray=dash)

    def text(self, x, y, text, *, size=12, fill=INK, anchor=None, weight=None):
        attributes = _attributes(
            x=x, y=y, font_size=size, fill=fill, text_anchor=anchor, font_weight=weight
        )
        self._elements.append(f"<text{attributes}>{_escaped(text)}</text>")

    def polyline(self, points, stroke):
        line = {"fill": "none", "stroke_width": 1.5, "stroke_linejoin": "round"}
        self._add("polyline", None, points=_points(points), stroke=stroke, **line)

    def polygon(self, points, fill, *, title=None):
        self._add("polygon", title, points=_points(points), fill=fill)

    def cells(self, x, y, width, height, path, stroke, *, filled=1):
        """Strokes `path`, whose unit is a cell of that size, without blurring its edges. `filled`: the
        share of a cell's width and height that is painted; the rest is a gap."""
        self._add(
            "path",
            None,
            d=path,
            stroke=stroke,
            fill="none",
            stroke_width=None if filled == 1 else f"{filled:.3g}",
            stroke_dasharray=None if filled == 1 else f"{filled:.3g} {1 - filled:.3g}",
            shape_rendering="crispEdges",
            transform=f"translate({number(x)} {number(y)}) scale({width:.6g} {height:.6g})",
        )

    def finished(self, width, height, title, description):
        """The Picture. Screen readers get `title` and `description`."""
        return Picture(width, height, title, description, "\n".join(self._elements))

    def _add(self, name, title, **values):
        if title:
            shape = f"{_attributes(**values)}><title>{_escaped(title)}</title></{name}>"
        else:
            shape = f"{_attributes(**values)}/>"
        self._elements.append(f"<{name}{shape}")


@dataclass(frozen=True)
class Picture:
    """An SVG picture. Jupyter shows it; str() is the text of a file."""

    width: float
    height: float
    title: str
    description: str
    elements: str

    def __str__(self):
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg"{self._head()}>\n<style>{_GROUNDS}</style>\n'
            f'{self._words()}\n<rect class="ground" width="100%" height="100%"/>\n'
            f"{self.elements}\n</svg>\n"
        )

    def fragment(self):
        """The picture as part of a page: no style sheet, no identifiers, the page's own ground."""
        style = "display:block;max-width:100%;height:auto;margin:4px 0"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg"{self._head()} style="{style}">'
            f"{self._words()}\n{self.elements}\n</svg>"
        )

    _repr_html_ = fragment

    def _head(self):
        width, height = number(self.width), number(self.height)
        return (
            f' width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
            f' font-family="{FONT}" role="img"'
        )

    def _words(self):
        return f"<title>{_escaped(self.title)}</title><desc>{_escaped(self.description)}</desc>"


def _points(points):
    return " ".join(f"{number(x)},{number(y)}" for x, y in points)


def _attributes(**values):
    """Attributes as text; those that are None or 0 are what SVG assumes anyway."""
    return "".join(_attribute(name.replace("_", "-"), value) for name, value in values.items())


def _attribute(name, value):
    if isinstance(value, Paint):
        fade = f' {name}-opacity="{value.opacity:.2g}"' if value.opacity != 1 else ""
        return f' {name}="{value.colour}"{fade}'
    if not value:
        return ""
    return f" {name}={quoteattr(value if isinstance(value, str) else number(value))}"


def _escaped(text):
    """Names of files may hold anything; XML may not."""
    return escape(marked(text, but="\n"))
