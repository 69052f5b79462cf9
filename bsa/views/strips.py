"""Rows of coloured spans: addresses, orders, slabs or time in a strip, many strips in a picture.

Few spans are drawn exactly, each with a text for the pointer. Of many, a picture would become too
large: they become Tiles, equal cells with the paint of what takes most of each, paler the more of it
is free. Neighbours of the same paint are one stroke, and the texts are those of whole zones of cells,
which say what these merge; so a picture's size is bounded whatever the data.
"""

from itertools import groupby
from typing import NamedTuple

from bsa.svg import Paint

MOST_SPANS = 900  # drawn exactly, in a picture
MOST_CELLS = 13_000  # in a picture
MOST_ZONES = 560
_COLUMNS = 256  # cells of a row
_GAP = 0.5  # between exact spans, where there is room
_UNSEEN = Paint("#000", 0)  # what is not painted at all takes no pointer


class Span(NamedTuple):
    """Part of a row, from `start` to `end`; `text` is what a pointer shows."""

    start: float
    end: float
    paint: Paint
    text: str = ""
    is_free: bool = False


class Rows(NamedTuple):
    """Where rows lie: the first begins at (x, y); each stands for `extent` units of its spans."""

    x: float
    y: float
    width: float
    height: float  # of a row, with the gap to the next
    extent: float
    gap: float = 1


class Tiles(NamedTuple):
    """Rows in equal cells."""

    cells: list  #: Paint or None (nothing) of each, row by row
    columns: int  #: cells of a row
    unit: float  #: width of a cell, in those units in which Spans would be
    texts: list  #: of equal zones, row by row; "" for none

    @property
    def rows(self):
        """The same as lists of Spans, one a row."""
        starts = range(0, len(self.cells), self.columns)
        rows = [self.cells[start : start + self.columns] for start in starts]
        return [list(_spans_of(row, self.unit)) for row in rows]


def draw(drawing, place, content):
    """Draw Tiles, or lists of Spans, one a row."""
    if isinstance(content, Tiles):
        draw_tiles(drawing, place, content)
    else:
        draw_rows(drawing, place, content)


def draw_rows(drawing, place, rows):
    """Draw lists of Spans, one a row, spans in order, each as it is."""
    scale = place.width / place.extent
    for row, spans in enumerate(rows):
        y, height = place.y + row * place.height, place.height - place.gap
        for span in spans:
            width = (span.end - span.start) * scale
            width -= _GAP if width > 4 * _GAP else 0
            x = place.x + span.start * scale
            drawing.rect(x, y, max(width, 0.3), height, span.paint, title=span.text)


def draw_tiles(drawing, place, tiles):
    """Draw Tiles where their Spans would lie."""
    scale = place.width / place.extent * tiles.unit
    for paint, path in strokes(tiles.cells, tiles.columns).items():
        drawing.cells(place.x, place.y, scale, place.height, path, paint)
    rows = len(tiles.cells) // tiles.columns
    draw_zones(drawing, place.x, place.y, scale * tiles.columns, place.height, rows, tiles.texts)


def occurring(legend, rows):
    """Of (name, Paint) those whose colour lists of Spans have; in Tiles it may be paler."""
    colours = {span.paint.colour for spans in rows for span in spans}
    return [(name, paint) for name, paint in legend if paint.colour in colours]


def draw_zones(drawing, x, y, width, height, rows, texts):
    """Rows of equal zones that are not seen: a pointer held over one shows its text."""
    texts = list(texts)
    zones = max(len(texts) // max(rows, 1), 1)
    for index, text in enumerate(texts):
        row, zone = divmod(index, zones)
        if text:
            left, top = x + zone * width / zones, y + row * height
            drawing.rect(left, top, width / zones, height, _UNSEEN, title=text)


def columns_for(rows, parts=1):
    """How many cells each of so many rows may have, in one of so many parts of a picture."""
    return _power_of_two(min(_COLUMNS, MOST_CELLS // (parts * max(rows, 1))))


def zones_for(rows, parts=1):
    """The same for zones: a divisor of it."""
    return _power_of_two(min(_COLUMNS, MOST_ZONES // (parts * max(rows, 1))))


def _power_of_two(atmost):
    return 1 << max(atmost, 1).bit_length() - 1


def tiles_of(rows, extent, columns):
    """The cells of lists of Spans, one list a row."""
    return [cell for spans in rows for cell in cells_of(spans, extent, columns)]


def cells_of(spans, extent, columns):
    """The paint of each of `columns` equal cells of a row; None where there is nothing."""
    cells = [{} for _ in range(columns)]
    scale = columns / extent
    for span in spans:
        start, end = span.start * scale, min(span.end * scale, columns)
        for cell in range(int(start), min(int(end) + 1, columns)):
            part = min(end, cell + 1) - max(start, cell)
            if part > 0:
                look = span.paint, span.is_free
                cells[cell][look] = cells[cell].get(look, 0) + part
    return list(map(dominant, cells))


def dominant(parts):
    """The paint that most of what is in use has, or of what is free if nothing is; of equals always
    the same one. `parts`: how much there is of each (paint, whether that is free)."""
    used = {paint: part for (paint, is_free), part in parts.items() if not is_free}
    if used:
        paint = max(used, key=lambda paint: (used[paint], paint))
        return faded(paint, sum(used.values()) / sum(parts.values()))
    free = {paint: part for (paint, _), part in parts.items()}
    return max(free, key=lambda paint: (free[paint], paint)) if free else None


def faded(paint, used):
    """The paint of a cell of which a share is in use: pale even for a little, in four steps."""
    quarters = min(-int(-4 * used // 1), 4)  # a quarter begun counts
    return paint._replace(opacity=round(paint.opacity * (0.5 + (quarters - 1) / 6), 2))


def strokes(cells, columns):
    """For each paint a path with one horizontal stroke per run of equal cells in a row of `columns`;
    None is not painted."""
    paths, ends = {}, {}
    for row, start, length in _runs(cells, columns):
        paint = cells[row * columns + start]
        if paint is None:
            continue
        end_row, end = ends.get(paint, (-0.5, 0))  # strokes run along the middle of the row
        down = f"{row - end_row:g}"
        paths.setdefault(paint, []).append(f"m{start - end} {down}h{length}")
        ends[paint] = (row, start + length)
    return {paint: "".join(parts) for paint, parts in paths.items()}


def _runs(cells, columns):
    """(row, first column, length) of each run of equal cells."""
    start = 0
    for cell in range(1, len(cells) + 1):
        at_end = cell == len(cells) or cell % columns == 0
        if at_end or cells[cell] != cells[start]:
            yield start // columns, start % columns, cell - start
            start = cell


def _spans_of(row, unit):
    start = 0
    for paint, run in groupby(row):
        end = start + sum(1 for _ in run)
        if paint is not None:
            yield Span(start * unit, end * unit, paint)
        start = end
