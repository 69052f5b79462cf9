"""A few shapes of SVG, written by hand: the whole dependency of the pictures.

A Drawing collects elements as text, in painting order. Coordinates are rounded to a tenth of a
unit, which no eye can see and which keeps files small.
"""

from xml.sax.saxutils import escape, quoteattr

FONT = "'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif"
INK = "#1f2933"


def number(value):
    """A coordinate as the shortest text."""
    return f"{value:.1f}".removesuffix(".0")


def text_width(text, size):
    """About how wide `text` is: fonts differ, so callers leave some room."""
    return 0.56 * size * len(text)


class Drawing:
    """Elements of one picture, in the order in which they are painted."""

    def __init__(self):
        self._elements = []

    def rect(self, x, y, width, height, fill, *, radius=0):
        self._add("rect", x=x, y=y, width=width, height=height, fill=fill, rx=radius)

    def line(self, x1, y1, x2, y2, stroke, *, width=1, dash=None):
        self._add(
            "line",
            x1=x1,
            y1=y1,
            x2=x2,
            y2=y2,
            stroke=stroke,
            stroke_width=width,
            stroke_dasharray=dash,
        )

    def text(self, x, y, text, *, size=12, fill=INK, anchor=None, weight=None):
        attributes = _attributes(
            x=x, y=y, font_size=size, fill=fill, text_anchor=anchor, font_weight=weight
        )
        self._elements.append(f"<text{attributes}>{escape(_printable(text))}</text>")

    def polyline(self, points, stroke):
        self._add(
            "polyline",
            points=" ".join(f"{number(x)},{number(y)}" for x, y in points),
            fill="none",
            stroke=stroke,
            stroke_width=1.5,
            stroke_linejoin="round",
        )

    def polygon(self, points, fill):
        self._add(
            "polygon", points=" ".join(f"{number(x)},{number(y)}" for x, y in points), fill=fill
        )

    def cells(self, x, y, scale, path, stroke):
        """Strokes `path`, whose unit is one cell of `scale` units, without blurring its edges."""
        self._add(
            "path",
            d=path,
            stroke=stroke,
            fill="none",
            shape_rendering="crispEdges",
            transform=f"translate({number(x)} {number(y)}) scale({scale:g})",
        )

    def document(self, width, height, title, description):
        """The whole file. Screen readers get `title` and `description`."""
        width, height = number(width), number(height)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" font-family="{FONT}" role="img"'
            ' aria-labelledby="title desc">\n'
            f'<title id="title">{escape(_printable(title))}</title>\n'
            f'<desc id="desc">{escape(_printable(description))}</desc>\n'
            '<rect width="100%" height="100%" fill="#ffffff"/>\n'
            + "\n".join(self._elements)
            + "\n</svg>\n"
        )

    def _add(self, name, **values):
        self._elements.append(f"<{name}{_attributes(**values)}/>")


def _attributes(**values):
    """Attributes as text; those that are None or 0 are what SVG assumes anyway."""
    return "".join(
        f" {name.replace('_', '-')}={quoteattr(_value(value))}"
        for name, value in values.items()
        if value
    )


def _value(value):
    return value if isinstance(value, str) else number(value)


def _printable(text):
    """Names of files may hold anything; XML may not."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
