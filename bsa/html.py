"""What Jupyter shows of an Allocator, a Section, a Slab, a Timeline and a Comparison.

Fragments without scripts, style sheets or identifiers of their own, so that any number of them fit into a
notebook. They take the colours of their surroundings for text; those of the pictures are visible on
light and on dark ground (bsa.views.colours). Whatever the size of what is shown, a fragment stays
small: pictures of large things are drawn in fewer cells.
"""

from html import escape

from bsa._core import ClosedError
from bsa.svg import Drawing
from bsa.timeline import fullest
from bsa.units import counted, format_size, percent
from bsa.views import colours, page_map, strips

_COLUMNS = 96
_CELLS = 24 * _COLUMNS  # at most, over all sections
_SECTIONS = 12  # at most; of further ones only the number is told
_CELL, _GAP = 6, 1  # units of the picture
_PINS_SHOWN = 20
_LOSSES_SHOWN = 8


# ---- Each kind ----


def allocator_html(allocator):
    """An HTML fragment for the allocator as it is now."""
    if allocator.closed:
        return fragment("bsa.Allocator, closed", "")
    try:
        sections = allocator.sections
    except RuntimeError as error:  # in a forked child, over memory of its parent
        return fragment(f"bsa.Allocator: {error}", "")
    if not sections:
        return fragment("bsa.Allocator without memory: add_region() gives it some", "")
    return fragment("bsa.Allocator", numbers_table(_numbers(allocator)) + _maps(sections))


def section_html(section):
    """The same for a section."""
    try:
        page_size = section.size // section.total_pages
    except ClosedError:
        return fragment("bsa.Section, removed", "")
    numbers = [
        ("heap", f"{format_size(section.size)} at {section.start:#x}"),
        ("pages", f"{section.total_pages:,} of {format_size(page_size)}"),
        ("free", f"{section.free_pages:,} ({percent(section.free_pages, section.total_pages)})"),
        ("free blocks", _free_blocks(section.free_blocks(), page_size)),
        ("region", f"{format_size(section.region_size)} at {section.region_start:#x}"),
        ("metadata", format_size(section.metadata_size)),
    ]
    return fragment(f"bsa.Section {section.index}", numbers_table(numbers) + _maps([section]))


def slab_html(slab):
    """The same for a slab: its objects in the order of their addresses."""
    live = slab.capacity - slab.free_count - slab.remote_free_count
    numbers = [
        ("objects", f"{slab.capacity:,} of {counted(slab.size, 'byte')}"),
        ("live", f"{live:,} ({percent(live, slab.capacity)})"),
        ("place", f"{format_size(slab.nbytes)} at {slab.base:#x}"),
        ("owner", f"slot {slab.cpu}, where it is {slab.state}"),
    ]
    if slab.remote_free_count:
        numbers.append(("freed by other slots", f"{slab.remote_free_count:,}, not yet taken back"))
    return fragment("bsa.Slab", numbers_table(numbers) + _objects(slab))


def timeline_html(timeline):
    """The same for a timeline: what was lost at the fullest moment and at the end; why and where, at
    the fullest; memory over time, free blocks."""
    from bsa.views.memory import memory_timeline
    from bsa.views.orders import order_map
    from bsa.views.tightest import shortened, tightest

    moment = tightest(timeline)
    culprits = ""
    if moment:
        culprits = _losses(shortened(moment.losses, _LOSSES_SHOWN)) + _where(moment.map)
    pictures = memory_timeline(timeline)._repr_html_() + order_map(timeline)._repr_html_()
    return fragment("bsa.Timeline", _timeline_table(timeline) + culprits + pictures)


def comparison_html(comparison):
    """The same for a comparison: its table, and bars of what each heap needs."""
    from bsa.views.comparing import comparison_bars

    bars = comparison_bars(comparison)._repr_html_()
    return fragment("bsa.Comparison", comparison_table(comparison) + bars)


def comparison_table(comparison):
    """The table alone, of so many rows as the bars show."""
    from bsa.compare import SHOWN, texts_of
    from bsa.views.comparing import MOST_ROWS

    texts = [texts_of(row) for row in comparison.rows[:MOST_ROWS]]
    if len(comparison) > MOST_ROWS:
        texts.append([f"and {len(comparison) - MOST_ROWS:,} more"])
    headings = ["", *(heading for heading, _, _ in SHOWN)]
    rows = "".join(map(_comparison_row, texts))
    return f"<table><tr>{_cells('th', headings)}</tr>{rows}</table>"


def pins_html(pins):
    """The same for what bsa.pins() found."""
    from bsa.views.pinning import described

    shown = [described(pin) for pin in pins.pins[:_PINS_SHOWN]]
    if len(pins) > _PINS_SHOWN:
        shown.append(f"and {len(pins) - _PINS_SHOWN:,} more")
    return fragment(repr(pins)[1:-1], "".join(f"<div>{escape(text)}</div>" for text in shown))


# ---- Tables ----


def fragment(title, body):
    return f'<div><div style="font-weight:bold">{escape(title)}</div>{body}</div>'


def numbers_table(numbers):
    rows = "".join(
        f'<tr>{_row_head(what)}<td style="text-align:left">{escape(how_much)}</td></tr>'
        for what, how_much in numbers
    )
    return f"<table>{rows}</table>"


def _cells(tag, texts):
    room = 'style="padding:0 6px;text-align:right;white-space:nowrap"'
    return "".join(f"<{tag} {room}>{escape(text)}</{tag}>" for text in texts)


def _row_head(name):
    return f'<th style="text-align:left;white-space:nowrap">{escape(name)}</th>'


def _comparison_row(cells):
    """A failure has a name and a reason only, which may be long."""
    name, *others = cells
    head = _row_head(name)
    if len(others) == 1:
        reason = f'<td colspan="99" style="text-align:left">{escape(others[0])}</td>'
        return f"<tr>{head}{reason}</tr>"
    return f"<tr>{head}{_cells('td', others)}</tr>"


def _numbers(allocator):
    """(what, how much) as texts."""
    stats = allocator.stats()
    managed, held = allocator.managed_bytes, allocator.allocated_bytes
    sections = len(allocator.sections)
    numbers = [
        (
            "managed",
            f"{format_size(managed)}: {counted(allocator.total_pages, 'page')} of"
            f" {format_size(allocator.page_size)} in {counted(sections, 'section')}",
        ),
        ("held", f"{format_size(held)} ({percent(held, managed)})"),
        ("granted", f"{format_size(stats.current_bytes)}, at most {format_size(stats.peak_bytes)}"),
        ("requested", format_size(allocator.requested_bytes)),
        ("live", f"{counted(stats.current_count, 'allocation')} of {stats.total_count:,} ever"),
        ("largest free block", format_size(allocator.largest_free)),
    ]
    if stats.parked_bytes:
        numbers.append(("parked", format_size(stats.parked_bytes)))
    if allocator.limit is not None:
        numbers.append(("limit", format_size(allocator.limit)))
    return numbers


def _timeline_table(timeline):
    """Two moments: what of the pages held was asked for, and where the rest went."""
    moments = fullest(timeline), len(timeline) - 1

    def of_held(column):
        return [
            f"{format_size(column[at])} ({percent(column[at], timeline.allocated[at])})"
            for at in moments
        ]

    def sizes(column):
        return [format_size(column[at]) for at in moments]

    rows = [
        ("after event", [f"{timeline.event[at]:,}" for at in moments]),
        ("held", sizes(timeline.allocated)),
        ("requested", of_held(timeline.requested)),
        ("lost to size classes", of_held(timeline.class_rounding)),
        ("lost to powers of two", of_held(timeline.page_rounding)),
        ("unused in slabs", of_held(timeline.slab_slack)),
        ("free", sizes(timeline.free)),
        ("largest free block", sizes(timeline.largest_free)),
    ]
    about = [
        ("events", f"{timeline.events:,}; {counted(timeline.survivors, 'block')} never freed"),
        ("heap", f"{format_size(timeline.managed)} of {format_size(timeline.page_size)} pages"),
    ]
    return numbers_table(about) + _table(["", "when most was held", "at the end"], rows)


def _table(headings, rows):
    lines = "".join(f"<tr>{_row_head(name)}{_cells('td', texts)}</tr>" for name, texts in rows)
    head = _row_head(headings[0]) + _cells("th", headings[1:])
    return f"<table><tr>{head}</tr>{lines}</table>"


def _losses(losses):
    """A table; none if nothing was lost."""
    if not losses:
        return ""
    total = sum(loss.size for loss in losses)
    texts = [
        (loss.what, [loss.how_many, f"{format_size(loss.size)} ({percent(loss.size, total)})"])
        for loss in losses
    ]
    return _table(["what lost most, when most was held", "how many", "lost (of all losses)"], texts)


def _where(heap_map):
    return f"<div>The heap when most was held:</div>{heap_map._repr_html_()}"


def _free_blocks(counts, page_size):
    shown = [
        f"{count:,} × {format_size(page_size << order)}"
        for order, count in enumerate(counts)
        if count
    ]
    return ", ".join(shown) or "none"


# ---- Maps ----


def _maps(sections):
    sections, others = sections[:_SECTIONS], len(sections[_SECTIONS:])
    more = f" {counted(others, 'more section')}." if others else ""
    pages_per_cell = page_map.pages_per_cell([s.total_pages for s in sections], _CELLS)
    maps = "".join(_map(section, pages_per_cell) for section in sections)
    cell = "a page" if pages_per_cell == 1 else f"{pages_per_cell:,} pages"
    return f"{maps}{_legend()}<div>Lowest address first; a cell is {cell}.{more}</div>"


def _legend():
    return "".join(
        '<span style="display:inline-block;width:0.8em;height:0.8em;'
        f'background:{paint.colour};opacity:{paint.opacity:g}"></span>'
        f' {name} <span style="display:inline-block;width:1em"></span>'
        for name, paint in page_map.LEGEND
    )


def _map(section, pages_per_cell):
    states = section.page_states()
    cells = page_map.cell_paints(states, pages_per_cell)
    zones = [
        _zone_text(section, states, start * pages_per_cell, end * pages_per_cell)
        for start, end in _zones(len(cells))
    ]
    return _cell_picture(cells, f"Section {section.index}", page_map.shares(states), zones)


def _zones(cells):
    """(first cell, cell after the last) of each zone: half a row at most, so that few texts do."""
    size = _COLUMNS // 2
    return [(start, min(start + size, cells)) for start in range(0, cells, size)]


def _zone_text(section, states, first, end):
    """What a pointer is told of pages: where they are and what they are used for."""
    end = min(end, len(states))
    page_size, heap = section.size // len(states), section.start - section.region_start
    place = f"{heap + first * page_size:#x} to {heap + end * page_size:#x}"
    return f"{place}: {page_map.shares(states[first:end])}"


def _objects(slab):
    bits = int.from_bytes(slab.bitmap, "little")
    paints = (colours.OBJECT, colours.FREE)
    cells = [paints[bits >> index & 1] for index in range(slab.capacity)]
    live = cells.count(colours.OBJECT)
    note = "<div>Lowest address first; a cell is an object, the grey ones are free.</div>"
    words = f"{live} of {slab.capacity} objects live"
    title = f"Slab of {slab.size}-byte objects"
    zones = [
        f"objects {start:,} to {end - 1:,}: {cells[start:end].count(colours.OBJECT)} live"
        for start, end in _zones(len(cells))
    ]
    return _cell_picture(cells, title, words, zones) + note


def _cell_picture(cells, title, description, zones):
    """Cells in rows; a pointer held over a zone of them is shown its text."""
    drawing, pitch = Drawing(), _CELL + _GAP
    for paint, path in strips.strokes(cells, _COLUMNS).items():
        drawing.cells(0, -_GAP / 2, pitch, pitch, path, paint, filled=_CELL / pitch)
    for (start, end), text in zip(_zones(len(cells)), zones):
        row, column = divmod(start, _COLUMNS)
        place = column * pitch, row * pitch, (end - start) * pitch, pitch
        strips.draw_zones(drawing, *place, 1, [text])
    width = min(len(cells), _COLUMNS) * pitch - _GAP
    height = -(-len(cells) // _COLUMNS) * pitch - _GAP
    return drawing.finished(width, height, title, description).fragment()
