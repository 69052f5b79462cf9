"""The picture of a replay, as SVG: where the memory is, and how it came to be so.

Three panels that can be had one by one or, with a headline, together:
- heap maps: every page of the heap in address order, row by row, coloured by what it is used for;
- a timeline: bytes asked for, granted and held in pages, over the events of the trace;
- the unusable free space index of a few block sizes, on the same axis of events.

Files stay small whatever the heap's size: a large heap has several pages to a cell, equal
neighbours in a row are one stroke, and lines keep just the lowest and highest sample of each step
on the screen.
Colours are of Okabe and Ito's palette, which colour-blind people can tell apart.
"""

from typing import NamedTuple

from bsa.svg import INK, Drawing, text_width
from bsa.units import format_size, percent

FAINT_INK, GRID = "#5f6b7a", "#dfe3e8"
FREE_COLOUR = "#e9ecef"

# Values of bsa.PageState, with their colours; 0 is a free page.
_USES = {1: ("page blocks", "#0072b2"), 2: ("slabs", "#e69f00"), 3: ("empty slabs", "#cc79a7")}

_WIDTH = 1080
_MARGIN = 32
_INNER = _WIDTH - 2 * _MARGIN
_LABELS = 60  # room for an axis's labels

_MAP_WIDTH = 444
_MAP_HEIGHT = 400  # at most
_MAP_COLUMNS = 128  # at most
_MAP_CELLS = 96 * _MAP_COLUMNS  # at most
_SHADES = (0.4, 0.6, 0.8, 1.0)  # of a cell up to 1/4, 1/2, 3/4 and wholly in use

_CHART_WIDTH = _INNER - _LABELS
_CHART_STEPS = 480  # along the events; each shows its lowest and highest sample


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
    return drawing.document(_WIDTH, y + 20, title, f"{subtitle}. {described}")


def heap_maps(maps, page_size, title="Heap map"):
    """Only the maps, side by side."""
    drawing = Drawing()
    y = _draw_maps(drawing, _MARGIN, maps, page_size)
    described = "; ".join(f"{m.caption}: {_shares(m.states)}" for m in maps)
    return drawing.document(_WIDTH, y + 20, title, described)


def timeline_chart(timeline, peak=None, title="Timeline"):
    """Only the timeline and the unusable index."""
    drawing = Drawing()
    y = _draw_timeline(drawing, _MARGIN, timeline, peak)
    return drawing.document(_WIDTH, y + 20, title, repr(timeline))


# ---- The headline ----


def _draw_headline(drawing, title, subtitle, facts):
    drawing.text(_MARGIN, 50, _fitted(title, 24, _INNER), size=24, weight="bold")
    drawing.text(_MARGIN, 74, _fitted(subtitle, 13, _INNER), size=13, fill=FAINT_INK)
    width = (_INNER - 12 * (len(facts) - 1)) / max(len(facts), 1)
    for index, fact in enumerate(facts):
        _draw_fact(drawing, _MARGIN + index * (width + 12), 94, width, fact)
    return 200


def _draw_fact(drawing, x, y, width, fact):
    label, value, note = fact
    drawing.rect(x, y, width, 74, "#f5f7fa", radius=6)
    drawing.text(x + 12, y + 20, _fitted(label, 11, width - 16), size=11, fill=FAINT_INK)
    drawing.text(x + 12, y + 44, value, size=20, weight="bold")
    drawing.text(x + 12, y + 62, _fitted(note, 11, width - 16), size=11, fill=FAINT_INK)


def _fitted(text, size, width):
    """`text`, cut in the middle if it would not fit."""
    room = int(width / text_width("x", size))
    if len(text) <= room:
        return text
    return f"{text[:room // 2 - 1]}…{text[-(room - room // 2 - 1):]}"


def _draw_heading(drawing, y, title, legend):
    """A panel's title, and at its right the legend: (text, colour, whether it is a line's)."""
    drawing.text(_MARGIN, y, title, size=15, weight="bold")
    x = _MARGIN + _INNER
    for text, colour, is_line in reversed(legend):
        x -= text_width(text, 12)
        drawing.text(x, y, text, fill=FAINT_INK)
        x -= 18
        if is_line:
            drawing.line(x - 6, y - 4, x + 12, y - 4, colour, width=2.5)
            x -= 6
        else:
            drawing.rect(x, y - 10, 12, 12, colour, radius=2)
        x -= 16


# ---- The heap map ----


class _Grid(NamedTuple):
    """How the pages of a heap are laid out in a map."""

    pages_per_cell: int
    columns: int
    rows: int

    @classmethod
    def of(cls, pages):
        """The finest grid within limits; powers of two, so that blocks lie on its lines."""
        pages_per_cell = 1
        while pages > pages_per_cell * _MAP_CELLS:
            pages_per_cell *= 2
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
    legend = [(name, colour, False) for name, colour in _USES.values()]
    _draw_heading(drawing, y, "Heap map", [*legend, ("free", FREE_COLOUR, False)])
    drawing.text(_MARGIN, y + 19, _scale_note(grid, page_size), fill=FAINT_INK)
    for index, heap_map in enumerate(maps):
        x = _MARGIN + index * (_INNER + 4) / 2 + _LABELS
        drawing.text(x, y + 46, heap_map.caption, size=13, weight="bold")
        drawing.text(x, y + 63, _shares(heap_map.states), fill=FAINT_INK)
        _draw_map(drawing, x, y + 73, heap_map.states, grid)
        _draw_addresses(drawing, x, y + 73, grid, page_size)
    return y + 73 + grid.rows * grid.scale


def _scale_note(grid, page_size):
    if grid.pages_per_cell == 1:
        return f"Lowest address first; a cell is a page of {format_size(page_size)}."
    size = format_size(grid.pages_per_cell * page_size)
    cell = f"{grid.pages_per_cell} pages ({size})"
    return f"Lowest address first; a cell is {cell}, paler if some are free."


def _shares(states):
    """What the pages are used for, in words."""
    shares = [f"{percent(states.count(state), len(states))} {_USES[state][0]}" for state in _USES]
    return ", ".join([*shares, f"{percent(states.count(0), len(states))} free"])


def _draw_map(drawing, x, y, states, grid):
    colours = [
        _cell_colour(states[start : start + grid.pages_per_cell])
        for start in range(0, len(states), grid.pages_per_cell)
    ]
    for colour, path in _strokes(colours, grid.columns).items():
        drawing.cells(x, y, grid.scale, path, colour)


def _cell_colour(pages):
    """The colour of the most frequent use, paler the more of the cell is free."""
    used = len(pages) - pages.count(0)
    if used == 0:
        return FREE_COLOUR
    colour = _USES[max(_USES, key=pages.count)][1]
    return _mixed(FREE_COLOUR, colour, _SHADES[(4 * used - 1) // len(pages)])


def _mixed(background, colour, share):
    """`share` of the colour over the background, as #rrggbb."""
    pairs = zip(bytes.fromhex(background[1:]), bytes.fromhex(colour[1:]))
    return "#" + bytes(round(b + (c - b) * share) for b, c in pairs).hex()


def _strokes(colours, columns):
    """For each colour a path with one horizontal stroke per run of equal cells in a row."""
    paths, ends = {}, {}
    for row, start, length in _runs(colours, columns):
        colour = colours[row * columns + start]
        end_row, end = ends.get(colour, (-0.5, 0))  # strokes run along the middle of the row
        down = f"{row - end_row:g}"
        paths.setdefault(colour, []).append(f"m{start - end} {down}h{length}")
        ends[colour] = (row, start + length)
    return {colour: "".join(parts) for colour, parts in paths.items()}


def _runs(colours, columns):
    """(row, first column, length) of each run of equal cells."""
    start = 0
    for cell in range(1, len(colours) + 1):
        at_end = cell == len(colours) or cell % columns == 0
        if at_end or colours[cell] != colours[start]:
            yield start // columns, start % columns, cell - start
            start = cell


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
    """A chart's place on the page and its range: from (0, 0) to (events, top)."""

    x: float
    y: float
    height: float
    events: int
    top: float

    def across(self, event):
        return self.x + _CHART_WIDTH * event / max(self.events, 1)

    def up(self, value):
        return self.y + self.height * (1 - value / self.top)

    def points(self, events, values):
        return [(self.across(event), self.up(value)) for event, value in _thinned(events, values)]


def _draw_timeline(drawing, y, timeline, peak):
    y = _draw_bytes(drawing, y, timeline, peak)
    return _draw_unusable(drawing, y + 44, timeline)


def _draw_bytes(drawing, y, timeline, peak):
    series = [
        ("pages held", timeline.allocated, "#3d4852"),
        ("granted", timeline.granted, "#d55e00"),
        ("requested", timeline.requested, "#009e73"),
    ]
    highest = max([1, *timeline.allocated, *timeline.granted, peak[1] if peak else 0])
    heap = timeline.managed if timeline.managed <= 1.5 * highest else 0
    step = _binary_step(max(highest, heap) / 5)
    top = step * int(max(highest, heap) / step + 1.4)  # headroom for labels
    axes = _Axes(_MARGIN + _LABELS, y + 18, 230, timeline.events, top)
    _draw_heading(drawing, y, "Live memory", [(name, colour, True) for name, _, colour in series])
    for tick in range(0, top + 1, step):
        _draw_level(drawing, axes, tick, format_size(tick))
    if heap:
        _draw_heap_size(drawing, axes, heap, peak)
    for _, values, colour in series:
        drawing.polyline(axes.points(timeline.event, values), colour)
    if peak:
        _draw_peak(drawing, axes, peak)
    _draw_event_axis(drawing, axes, "")
    return axes.y + axes.height


def _draw_heap_size(drawing, axes, heap, peak):
    """Its label stands at the end of the line that is farther from the peak."""
    y = axes.up(heap)
    drawing.line(axes.x, y, axes.x + _CHART_WIDTH, y, "#0072b2", dash="6 4")
    label = f"pages of the heap {format_size(heap)}"
    if peak and peak[0] > axes.events / 2:
        drawing.text(axes.x, y - 5, label, size=11, fill="#0072b2")
    else:
        drawing.text(axes.x + _CHART_WIDTH, y - 5, label, size=11, fill="#0072b2", anchor="end")


def _draw_peak(drawing, axes, peak):
    """Its label stands at the top of the chart, above all lines."""
    event, live = peak
    x, y = axes.across(event), axes.up(live)
    at_right = x > axes.x + 0.8 * _CHART_WIDTH
    drawing.line(x, axes.y, x, axes.y + axes.height, FAINT_INK, dash="2 3")
    drawing.polygon([(x - 5, y - 9), (x + 5, y - 9), (x, y - 1)], INK)
    drawing.text(
        x + (-8 if at_right else 8),
        axes.y + 11,
        f"peak {format_size(live)}",
        size=11,
        anchor="end" if at_right else None,
    )


_INDEX_COLOURS = ("#56b4e9", "#0072b2", "#cc79a7")


def _draw_unusable(drawing, y, timeline):
    axes = _Axes(_MARGIN + _LABELS, y + 32, 120, timeline.events, 1)
    blocks = telling_blocks(timeline)
    legend = [
        (format_size(size), colour, True) for (_, size), colour in zip(blocks, _INDEX_COLOURS)
    ]
    _draw_heading(drawing, y, "Unusable free space index", legend)
    note = (
        "Share of the free memory that cannot serve one block of the size: 0 is best, 1 is worst."
    )
    drawing.text(_MARGIN, y + 19, note, fill=FAINT_INK)
    for tick in (0, 0.5, 1):
        _draw_level(drawing, axes, tick, f"{tick:g}")
    for (order, _), colour in zip(blocks, _INDEX_COLOURS):
        drawing.polyline(axes.points(timeline.event, timeline.unusable_index(order)), colour)
    _draw_event_axis(drawing, axes, "events")
    return axes.y + axes.height + 36


def telling_blocks(timeline):
    """Three (order, bytes) of blocks, the largest of which fits a few times into the heap.

    Fewer in a heap of few pages; at least that of a single page.
    """
    largest = max(timeline.managed // timeline.page_size, 1).bit_length() - 1
    orders = [order for order in (largest - 6, largest - 4, largest - 2) if order >= 0] or [0]
    return [(order, timeline.page_size << order) for order in orders]


def _draw_level(drawing, axes, value, label):
    """A horizontal grid line and its label."""
    y = axes.up(value)
    drawing.line(axes.x, y, axes.x + _CHART_WIDTH, y, GRID)
    drawing.text(axes.x - 8, y + 4, label, size=11, fill=FAINT_INK, anchor="end")


def _draw_event_axis(drawing, axes, unit):
    """Marks at round numbers of events; labels too if `unit` names them."""
    y = axes.y + axes.height
    step = _decimal_step(axes.events / 8)
    for event in range(0, axes.events + 1, step):
        x = axes.across(event)
        drawing.line(x, y, x, y + 5, FAINT_INK)
        if unit:
            drawing.text(x, y + 19, f"{event:,}", size=11, fill=FAINT_INK, anchor="middle")
    if unit:
        drawing.text(axes.x + _CHART_WIDTH, y + 35, unit, size=11, fill=FAINT_INK, anchor="end")


def _binary_step(atleast):
    """The next power of two."""
    return 1 << max(int(atleast) - 1, 0).bit_length()


def _decimal_step(atleast):
    """The next of 1, 2, 5, 10, 20, ..."""
    scale = 1
    while True:
        for step in (scale, 2 * scale, 5 * scale):
            if step >= atleast:
                return step
        scale *= 10


def _thinned(events, values):
    """The samples, or where there are too many the lowest and highest of each of some steps."""
    pairs = list(zip(events, values))
    if len(pairs) <= 2 * _CHART_STEPS:
        return pairs
    thin = pairs[:1]
    for step in range(_CHART_STEPS):
        part = pairs[step * len(pairs) // _CHART_STEPS : (step + 1) * len(pairs) // _CHART_STEPS]
        thin += sorted({min(part, key=_value), max(part, key=_value)})
    return [*thin, pairs[-1]]


def _value(pair):
    return pair[1]
