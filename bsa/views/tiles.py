"""Stretches of a heap as tiles: what is drawn of a heap that has too many pieces."""

from bsa._core import MAX_ORDER
from bsa.mosaic import free_size, mosaic, pieces_in_words
from bsa.units import format_size, percent
from bsa.views import colours, strips
from bsa.views.pieces import asked_of

_SLACK = colours.SLACK, True
_PAGES, _OBJECT, _LOSS = ((paint, False) for paint in (colours.PAGES, colours.OBJECT, colours.LOSS))


def heap_tiles(allocator, section, start, size, row_bytes, *, objects, births, parts=1):
    """Tiles of `size` bytes of a Section from an offset on, in rows of `row_bytes`, a power of two.
    `objects` and `births` as heap_map() has them; `parts`: how many share the picture."""
    rows = -(-size // row_bytes)
    columns = min(strips.columns_for(rows, parts), row_bytes)
    cell = row_bytes // columns
    heap = section.start - section.region_start
    cells = mosaic(allocator, section, start, cell, rows * columns)
    parts_of_cells = [{} for _ in range(rows * columns)]
    _add(parts_of_cells, cell, -start, heap - start, (colours.METADATA, False))
    _add_columns(parts_of_cells, cells, objects, top_order(section))
    losses = list(_losses(allocator, section, births, objects)) if births else []
    for first, last, rest in losses:
        _add(parts_of_cells, cell, first - start, last - start, _LOSS, rest)
    zones = strips.zones_for(rows, parts)
    texts = _zone_texts(allocator, section, start, row_bytes // zones, rows * zones, losses)
    return strips.Tiles(list(map(strips.dominant, parts_of_cells)), columns, cell, texts)


def top_order(section):
    """The largest order that fits into as many pages as the section has."""
    return min(section.total_pages.bit_length() - 1, MAX_ORDER)


def _zone_texts(allocator, section, start, size, count, losses):
    """Of `count` zones of `size` bytes from an offset on: where each is, and what it merges."""
    zones = mosaic(allocator, section, start, size, count)
    end = section.start - section.region_start + section.size
    lost = [{} for _ in range(count)]
    for first, last, _ in losses:
        _add(lost, size, first - start, last - start, _LOSS)
    return [
        _zone_text(
            zones.sums(zone),
            zones.offset(zone),
            min(zones.offset(zone + 1), end),
            lost[zone].get(_LOSS, 0),
        )
        for zone in range(count)
    ]


def _zone_text(sums, start, end, lost):
    if start >= end:
        return ""
    place = f"{start:#x} to {end:#x}"
    if not sums:
        return f"{place}: metadata"
    free = percent(free_size(sums), end - start)
    loss = f", {format_size(lost)} lost by rounding" if lost else ""
    return f"{place}: {pieces_in_words(sums)}; {free} free{loss}"


def _add_columns(parts, cells, objects, top):
    """What the columns say. In a slab, what is no live object is slack, if objects are drawn."""
    looks = {
        "pages": _PAGES,
        "slab": _SLACK if objects else (colours.SLAB, False),
        "idle": (colours.EMPTY_SLAB, False),
        "object": _OBJECT if objects else None,
    }
    for kind, order, sizes, _ in cells.columns:
        look = looks.get(kind, (colours.free_paint(order, top), True))
        if look is None:
            continue
        for part, size in zip(parts, sizes):
            if size:
                part[look] = part.get(look, 0) + size
    if objects:
        for part in parts:
            if _OBJECT in part:
                part[_SLACK] -= part[_OBJECT]


def _losses(allocator, section, births, objects):
    """(offset, end, look of the rest) of what rounding up loses of each allocation."""
    base, end = section.region_start, section.start + section.size
    for address, size, _ in allocator.walk():
        birth = births.get(address)
        if birth is None or not section.start <= address < end:
            continue
        is_object = size < allocator.page_size
        asked = asked_of(birth, size)
        if asked < size and (objects or not is_object):
            start = address - base
            yield start + asked, start + size, _OBJECT if is_object else _PAGES


def _add(parts, cell, start, end, look, instead_of=None):
    """Adds what lies from `start` to `end`, in bytes from the first cell's beginning."""
    start, end = max(start, 0), min(end, len(parts) * cell)
    while start < end:
        number = start // cell
        stop = min((number + 1) * cell, end)
        part = parts[number]
        part[look] = part.get(look, 0) + stop - start
        if instead_of is not None:
            part[instead_of] -= stop - start
        start = stop
