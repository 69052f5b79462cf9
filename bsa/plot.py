"""The picture of a replay, as SVG: where the memory is, and how it came to be so.

Three panels that can be had one by one or, with a headline, together:
- heap maps: every page of the heap in address order, row by row, coloured by what it is used for;
- a timeline: bytes asked for, granted and held in pages, over the events of the trace;
- the unusable free space index of a few block sizes, on the same axis of events.

Files stay small whatever the heap's size: a large heap has several pages to a cell, equal
neighbours in a row are one stroke, and lines keep just the lowest and highest sample of each step
on the screen. Colours are those of all views: bsa.views.colours.
"""

from typing import NamedTuple

from bsa._core import MAX_ORDER
from bsa.svg import FAINT_INK, GRID, INK, Drawing, Paint
from bsa.units import format_size
from bsa.views import colours, frame, page_map, strips
from bsa.views.frame import INNER, LEFT, MARGIN, RIGHT, WIDTH

_WHOLE = RIGHT - MARGIN  # the width of all panels
_MAP_WIDTH = 430
_MAP_HEIGHT = 400  # at most
_MAP_COLUMNS = 128  # at most
_MAP_CELLS = 96 * _MAP_COLUMNS  # at most

_STEPS = 480  # along the events; each shows its lowest and highest sample

_HELD, _GRANTED, _REQUESTED = INK, colours.LOSS, colours.REQUESTED
_HEAP = Paint(colours.BLUE)
_INDICES = (Paint(colours.SKY), Paint(colours.BLUE), Paint(colours.PURPLE))


class HeapMap(NamedTuple):
    """The states of all pages at one moment: `states` has one byte a page (bsa.PageState)."""

    caption: str
    states: bytes


def picture(*, title, subtitle, facts, maps, timeline, peak=None):
    """All panels under a headline. `facts` are (label, value, note) texts; `peak` is the trace's
    (event, live bytes)."""
    drawing = Drawing()
    y = _draw_headline(drawing, title, subtitle, facts)
    y = _draw_maps(drawing, y, maps, timeline.page_size)
    y = _draw_timeline(drawing, y + 34, timeline, peak)
    described = "; ".join(f"{label}: {value} ({note})" for label, value, note in facts)
    return str(drawing.finished(WIDTH, y + 20, title, f"{subtitle}. {described}"))


def heap_maps(maps, page_size, title="Heap map"):
    """Only the maps, side by side."""
    drawing = Drawing()
    y = _draw_maps(drawing, frame.TOP, maps, page_size)
    described = "; ".join(f"{m.caption}: {page_map.shares(m.states)}" for m in maps)
    return str(drawing.finished(WIDTH, y + 20, title, described))


def timeline_chart(timeline, peak=None, title="Timeline"):
    """Only the timeline and the unusable index."""
    drawing = Drawing()
    y = _draw_timeline(drawing, frame.TOP, timeline, peak)
    return str(drawing.finished(WIDTH, y + 20, title, repr(timeline)))


# ---- The headline ----


def _draw_headline(drawing, title, subtitle, facts):
    drawing.text(MARGIN, 40, frame.fitted(title, 24, _WHOLE), size=24, weight="bold")
    drawing.text(MARGIN, 64, frame.fitted(subtitle, 13, _WHOLE), size=13, fill=FAINT_INK)
    width = (_WHOLE - 12 * (len(facts) - 1)) / max(len(facts), 1)
    for index, fact in enumerate(facts):
        _draw_fact(drawing, MARGIN + index * (width + 12), 84, width, fact)
    return 190


def _draw_fact(drawing, x, y, width, fact):
    label, value, note = (frame.fitted(text, 11, width - 16) for text in fact)
    drawing.rect(x, y, width, 74, GRID._replace(opacity=0.06), radius=6)
    drawing.text(x + 12, y + 20, label, size=11, fill=FAINT_INK)
    drawing.text(x + 12, y + 44, value, size=20, weight="bold")
    drawing.text(x + 12, y + 62, note, size=11, fill=FAINT_INK)


# ---- The heap map ----


class _Grid(NamedTuple):
    """How the pages of a heap are laid out in a map."""

    pages_per_cell: int
    columns: int
    rows: int

    @classmethod
    def of(cls, pages):
        """The finest grid within limits; powers of two, so that blocks lie on its lines."""
        pages_per_cell = page_map.pages_per_cell([pages], _MAP_CELLS)
        cells = max(-(-pages // pages_per_cell), 1)
        columns = 8
        while columns < _MAP_COLUMNS and -(-cells // columns) * _MAP_WIDTH > _MAP_HEIGHT * columns:
            columns *= 2
        return cls(pages_per_cell, columns, -(-cells // columns))

    @property
    def scale(self):
        return _MAP_WIDTH / self.columns


def _draw_maps(drawing, y, maps, page_size):
    grid = _Grid.of(max((len(m.states) for m in maps), default=0))
    note = _scale_note(grid, page_size)
    y = frame.draw_heading(drawing, y, "Heap map", note, page_map.LEGEND)
    for index, heap_map in enumerate(maps):
        x = LEFT + index * (RIGHT - _MAP_WIDTH - LEFT)
        drawing.text(x, y + 12, heap_map.caption, size=13, weight="bold")
        drawing.text(x, y + 29, page_map.shares(heap_map.states), size=11, fill=FAINT_INK)
        _draw_map(drawing, x, y + 39, heap_map.states, grid)
        _draw_addresses(drawing, x, y + 39, grid, page_size)
    return y + 39 + grid.rows * grid.scale


def _scale_note(grid, page_size):
    if grid.pages_per_cell == 1:
        return f"Lowest address first; a cell is a page of {format_size(page_size)}."
    size = format_size(grid.pages_per_cell * page_size)
    cell = f"{grid.pages_per_cell} pages ({size})"
    return f"Lowest address first; a cell is {cell}, paler if some are free."


def _draw_map(drawing, x, y, states, grid):
    cells = page_map.cell_paints(states, grid.pages_per_cell)
    for paint, path in strips.strokes(cells, grid.columns).items():
        drawing.cells(x, y, grid.scale, grid.scale, path, paint)


def _draw_addresses(drawing, x, y, grid, page_size):
    """Offsets into the heap, at the left of a few rows."""
    step = 1
    while step * grid.scale < 40:
        step *= 2
    for row in range(0, grid.rows, step):
        offset = format_size(row * grid.columns * grid.pages_per_cell * page_size)
        drawing.text(x - 8, y + row * grid.scale + 9, offset, size=11, fill=FAINT_INK, anchor="end")


# ---- The timeline ----


class _Axes(NamedTuple):
    """Of a chart: events across, and something up."""

    across: frame.Axis
    up: frame.Axis

    @classmethod
    def at(cls, y, height, events, top):
        return cls(frame.Axis(LEFT, RIGHT, 0, events), frame.Axis(y + height, y, 0, top))

    @property
    def ground(self):
        return self.up.start

    @property
    def ceiling(self):
        return self.up.end

    def draw_line(self, drawing, events, values, stroke):
        chosen = frame.telling_samples(values, _STEPS)
        points = [(self.across(events[i]), self.up(values[i])) for i in chosen]
        drawing.polyline(points, stroke)

    def draw_events(self, drawing, unit, label):
        ticks = frame.event_ticks(self.across.high)
        frame.draw_marks(drawing, self.ground, self.across, ticks, label, unit)


def _draw_timeline(drawing, y, timeline, peak):
    y = _draw_bytes(drawing, y, timeline, peak)
    return _draw_unusable(drawing, y + 44, timeline)


def _draw_bytes(drawing, y, timeline, peak):
    series = (
        ("pages held", timeline.allocated, _HELD),
        ("granted", timeline.granted, _GRANTED),
        ("requested", timeline.requested, _REQUESTED),
    )
    highest = max([1, *timeline.allocated, *timeline.granted, peak[1] if peak else 0])
    heap = timeline.managed if timeline.managed <= 1.5 * highest else 0
    step = frame.byte_ticks(max(highest, heap)).step
    top = step * int(max(highest, heap) / step + 1.4)  # headroom for labels
    legend = [(name, paint) for name, _, paint in series]
    y = frame.draw_heading(drawing, y, "Live memory", legend=legend)
    axes = _Axes.at(y, 230, timeline.events, top)
    frame.draw_levels(drawing, axes.up, range(0, top + 1, step), format_size)
    if heap:
        _draw_heap_size(drawing, axes, heap, peak)
    for _, values, paint in series:
        axes.draw_line(drawing, timeline.event, values, paint)
    if peak:
        _draw_peak(drawing, axes, peak)
    axes.draw_events(drawing, "", lambda event: "")
    return axes.ground


def _draw_heap_size(drawing, axes, heap, peak):
    """Its label stands at the end of the line that is farther from the peak."""
    y = axes.up(heap)
    drawing.line(LEFT, y, RIGHT, y, _HEAP, dash="6 4")
    label = f"pages of the heap {format_size(heap)}"
    at_left = peak and peak[0] > axes.across.high / 2
    x, anchor = (LEFT, None) if at_left else (RIGHT, "end")
    drawing.text(x, y - 5, label, size=11, anchor=anchor)


def _draw_peak(drawing, axes, peak):
    """Its label stands at the top of the chart, above all lines."""
    event, live = peak
    x, y = axes.across(event), axes.up(live)
    drawing.line(x, axes.ceiling, x, axes.ground, FAINT_INK, dash="2 3")
    drawing.polygon([(x - 5, y - 9), (x + 5, y - 9), (x, y - 1)], INK)
    side, anchor = (-8, "end") if x > LEFT + 0.8 * INNER else (8, None)
    label = f"peak {format_size(live)}"
    drawing.text(x + side, axes.ceiling + 11, label, size=11, anchor=anchor)


def _draw_unusable(drawing, y, timeline):
    blocks = telling_blocks(timeline)
    legend = [(format_size(size), paint) for (_, size), paint in zip(blocks, _INDICES)]
    note = (
        "Share of the free memory that cannot serve one block of the size: 0 is best, 1 is worst."
    )
    y = frame.draw_heading(drawing, y, "Unusable free space index", note, legend)
    axes = _Axes.at(y, 120, timeline.events, 1)
    frame.draw_levels(drawing, axes.up, (0, 0.5, 1), lambda share: f"{share:g}")
    for (order, _), paint in zip(blocks, _INDICES):
        axes.draw_line(drawing, timeline.event, timeline.unusable_index(order), paint)
    axes.draw_events(drawing, "events", frame.events_label)
    return axes.ground + 36


def telling_blocks(timeline):
    """Three (order, bytes) of blocks, the largest of which fits at least a few times into the heap.

    Fewer in a heap of few pages; at least that of a single page.
    """
    fills = max(timeline.managed // timeline.page_size, 1).bit_length() - 1
    largest = min(fills - 2, MAX_ORDER)
    orders = [order for order in (largest - 4, largest - 2, largest) if order >= 0] or [0]
    return [(order, timeline.page_size << order) for order in orders]
