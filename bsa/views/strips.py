"""Rows of coloured spans: addresses, orders, slabs or time in a strip, many strips in a picture.

Few spans are drawn exactly, each with a text for the pointer. Of many, a picture would become too
large: they are drawn in cells, each with the paint of what takes most of it, paler the more of it is
free. Neighbours of the same paint are one stroke, so a picture's size is bounded whatever the data.
"""

from typing import NamedTuple

from bsa.svg import Paint

MOST_SPANS = 900  # drawn exactly, in a picture
_COLUMNS = 320  # cells of a row, where spans are too many
_MOST_CELLS = 16_000  # in a picture
_GAP = 0.5  # between exact spans, where there is room


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


def draw_rows(drawing, place, rows, *, parts=1):
    """Draw lists of Spans, one a row, spans in order. `parts`: how many times this is called for the
    picture, which is not to become larger for it."""
    if sum(map(len, rows)) <= MOST_SPANS // parts:
        _draw_exactly(drawing, place, rows)
    else:
        _draw_in_cells(drawing, place, rows, _MOST_CELLS // parts)


def _draw_exactly(drawing, place, rows):
    scale = place.width / place.extent
    for row, spans in enumerate(rows):
        y, height = place.y + row * place.height, place.height - place.gap
        for span in spans:
            width = (span.end - span.start) * scale
            width -= _GAP if width > 4 * _GAP else 0
            x = place.x + span.start * scale
            drawing.rect(x, y, max(width, 0.3), height, span.paint, title=span.text)


def _draw_in_cells(drawing, place, rows, most):
    columns = max(min(_COLUMNS, most // len(rows)), 8)
    cells = [cell for spans in rows for cell in cells_of(spans, place.extent, columns)]
    x, y = place.x, place.y
    for paint, path in strokes(cells, columns).items():
        drawing.cells(x, y, place.width / columns, place.height, path, paint)


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
    return [_dominant(cell) for cell in cells]


def _dominant(parts):
    """The most frequent paint of what is in use, or of what is free if nothing is."""
    used = {paint: part for (paint, is_free), part in parts.items() if not is_free}
    if used:
        paint = max(used, key=used.get)
        return faded(paint, sum(used.values()) / sum(parts.values()))
    free = {paint: part for (paint, _), part in parts.items()}
    return max(free, key=free.get) if free else None


def faded(paint, used):
    """The paint of a cell of which a share is in use: pale even for a little, in four steps."""
    quarters = min(-int(-4 * used // 1), 4)  # a quarter begun counts
    return paint._replace(opacity=round(paint.opacity * (0.4 + 0.2 * (quarters - 1)), 2))


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
