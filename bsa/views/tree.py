"""The buddy tree: orders from top to bottom, offsets from left to right.

A block of order k stands in row k over the pages it has; above it stand the splits it came from. A
free block whose buddy is not free as a whole cannot merge: those are what fragmentation is made of.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from bsa._core import MAX_ORDER, Allocator
from bsa.mosaic import free_size, mosaic, pieces_in_words
from bsa.space import Space, spaces
from bsa.svg import Drawing, Paint
from bsa.units import counted, format_size
from bsa.views import colours, frame, strips, view
from bsa.views.pieces import slab_text
from bsa.views.strips import Span, Tiles
from bsa.views.view import View

_ROW = 20
_SPLIT = Paint("currentColor", 0.1)
_RUN = Paint(colours.SKY)
_FREE, _STUCK = Paint(colours.GREY, 0.45), Paint(colours.VERMILLION)

_LEGEND = (
    ("split", _SPLIT),
    ("page block", colours.PAGES),
    ("slab", colours.SLAB),
    ("empty slab", colours.EMPTY_SLAB),
    ("free, cannot merge", _STUCK),
    ("free", _FREE),
    ("free in a row", _RUN),
)


def buddy_tree(allocator, section=0):
    """The tree of one section, by its place in `allocator.sections`; IndexError if there is none.

    A section of more than a few hundred blocks is drawn in equal cells, of which the pointer shows
    what a zone of them merges.
    """
    view.check("buddy_tree", allocator, Allocator)
    section = allocator.sections[section]
    heap = _Heap(
        section.index,
        section.start - section.region_start,
        section.size,
        allocator.page_size,
        min(section.total_pages.bit_length() - 1, MAX_ORDER),
    )
    sums = mosaic(allocator, section, heap.start, heap.size, 1)
    blocks = sum(count for kind, (_, count) in sums.sums().items() if kind != "object")
    if blocks > strips.MOST_SPANS // 3:  # with the splits above and the runs below
        content = _Tiling(allocator, section, heap).tiles()
    else:
        content = _Blocks(spaces(allocator)[section.index]).rows()
    return BuddyTree(heap, content, *sums.sums().get("stuck", (0, 0)))


class _Heap(NamedTuple):
    """The heap of a section."""

    section: int  #: index
    start: int  #: offset from the region's first byte
    size: int  #: bytes
    page_size: int
    top_order: int  #: the largest that fits

    @property
    def orders(self):
        """Of the rows, from the top down; below them is one of free runs."""
        return range(self.top_order, -1, -1)


@dataclass(frozen=True, repr=False)
class BuddyTree(View):
    """The data: the heap, and lists of Spans (in pages, one a row) or Tiles."""

    heap: _Heap
    content: list[list[Span]] | Tiles
    stuck_size: int  #: bytes in free blocks that cannot merge
    stuck: int  #: how many these are

    def rows(self):
        """Lists of Span in pages of the heap: a row for each order from the top one down to single
        pages, and one for what is free in a row by address."""
        return self.content.rows if isinstance(self.content, Tiles) else self.content

    def picture(self):
        drawing, heap = Drawing(), self.heap
        note = (
            "A block stands in the row of its order, over the pages it has. One that is free and cannot "
            "merge waits for its buddy, though its neighbours may be free."
        )
        legend = strips.occurring(_LEGEND, self.rows())
        y = frame.draw_heading(drawing, frame.TOP, "Buddy tree", note, legend)
        pages = heap.size // heap.page_size
        place = strips.Rows(frame.LEFT, y, frame.INNER, _ROW, pages, gap=2)
        labels = self._labels()
        for row, label in enumerate(labels):
            at = y + row * _ROW + 13
            drawing.text(frame.LEFT - 8, at, label, size=11, fill=frame.FAINT_INK, anchor="end")
        strips.draw(drawing, place, self.content)
        y += len(labels) * _ROW
        end = heap.start + heap.size
        axis = frame.Axis(frame.LEFT, frame.RIGHT, heap.start, end)
        unit = "offset from the region's first byte"
        ticks = frame.offset_ticks(heap.start, end)
        frame.draw_marks(drawing, y, axis, ticks, frame.offset_label, unit)
        return drawing.finished(frame.WIDTH, y + 44, "Buddy tree", self._description())

    def _labels(self):
        names = (frame.order_label(order, self.heap.page_size) for order in self.heap.orders)
        return [*names, "free runs"]

    def _description(self):
        return (
            f"Section {self.heap.section}, {format_size(self.heap.size)} of heap: "
            f"{counted(self.stuck, 'free block')} of {format_size(self.stuck_size)} cannot merge"
        )

    def _plot(self, ax):
        from bsa.views import figure

        rows = self.rows()
        figure.plot_rows(ax, rows)
        figure.plot_legend(ax, strips.occurring(_LEGEND, rows))
        ax.set_xlim(0, self.heap.size // self.heap.page_size)
        ax.set_xlabel(f"offset in the heap (pages of {format_size(self.heap.page_size)})")
        ax.set_yticks([row + 0.45 for row in range(len(rows))], self._labels())
        ax.set_ylabel("order: block size")
        ax.set_title("Buddy tree")


class _Blocks:
    """Each block as a span."""

    def __init__(self, space: Space):
        self.space = space

    def rows(self):
        rows = {order: [] for order in range(self.space.top_order, -1, -1)}
        splits = {order: [] for order in rows}
        for extent in self.space.extents:
            if extent.kind != "metadata":
                for order, page in self._pieces(extent):
                    rows[order].append(self._piece(extent, order, page))
                    self._add_splits(splits, order, page)
        return [sorted(splits[order] + rows[order]) for order in rows] + [list(self._runs())]

    def _pieces(self, extent):
        """(order, first page) of the blocks it is made of: one, unless just the pages asked for were
        kept, say 5 as 4 + 1."""
        page, pages = self.space.page_of(extent), extent.size // self.space.page_size
        while pages:
            order = pages.bit_length() - 1
            yield order, page
            page, pages = page + (1 << order), pages - (1 << order)

    def _runs(self):
        """What is free by address alone, whatever the buddies say."""
        for is_free, group in groupby(self.space.extents, lambda extent: extent.kind == "free"):
            if is_free:
                blocks = list(group)
                yield self._run(blocks[0].start, blocks[-1].end, len(blocks))

    def _run(self, start, end, count):
        first = (start - self.space.heap) // self.space.page_size
        last = (end - self.space.heap) // self.space.page_size
        text = (
            f"{start:#x}: {format_size(end - start)} free in a row, {counted(count, 'free block')}"
        )
        return Span(first, last, _RUN, text, True)

    def _add_splits(self, splits, order, page):
        """The blocks this one was split off, as far as no neighbour at the left has added them."""
        for above in range(order + 1, self.space.top_order + 1):
            first = page >> above << above
            if first < self.space.first_page or first + (1 << above) > self.space.end_page:
                return  # never was a block: the heap ends within it
            start = first - self.space.first_page
            if splits[above] and splits[above][-1].start == start:
                return
            text = f"{self._where(first)}split block of {self._name(above)}"
            splits[above].append(Span(start, start + (1 << above), _SPLIT, text, True))

    def _piece(self, extent, order, page):
        start, end = page - self.space.first_page, page - self.space.first_page + (1 << order)
        paint, text = self._look(extent, order, page)
        return Span(start, end, paint, self._where(page) + text, extent.kind == "free")

    def _look(self, extent, order, page):
        if extent.kind == "free":
            return self._free_look(order, page)
        if extent.is_idle:
            return colours.EMPTY_SLAB, f"empty slab of {self._name(order)}"
        if extent.kind == "slab":
            return colours.SLAB, slab_text(extent)
        return colours.PAGES, f"page block of {self._name(order)}"

    def _free_look(self, order, page):
        buddy = page ^ (1 << order)
        text = f"free block of {self._name(order)}"
        if order == MAX_ORDER:
            return _FREE, f"{text}: none is larger"
        if buddy < self.space.first_page or buddy + (1 << order) > self.space.end_page:
            return _FREE, f"{text}; its buddy is not in the heap"
        return _STUCK, f"{text}; its buddy at {self._where(buddy)}is in use, or a part of it is"

    def _where(self, page):
        return f"{page * self.space.page_size - self.space.base:#x}: "

    def _name(self, order):
        return f"order {order}, {format_size(self.space.page_size << order)}"


class _Tiling:
    """Blocks of so many pages that they are drawn in cells: a row of cells for each order."""

    def __init__(self, allocator, section, heap):
        self._allocator, self._section, self._heap = allocator, section, heap
        self._rows = len(heap.orders) + 1
        self._columns = strips.columns_for(self._rows)
        self._pages = -(-heap.size // heap.page_size // self._columns)  # of a cell
        self._cell = self._pages * heap.page_size

    def tiles(self):
        cells = self._mosaic(self._columns)
        paints = [paint for order in self._heap.orders for paint in self._row(cells, order)]
        paints += self._runs(cells)
        zones = strips.zones_for(self._rows)
        return Tiles(paints, self._columns, self._pages, self._texts(self._mosaic(zones)))

    def _mosaic(self, count):
        size = self._cell * (self._columns // count)
        return mosaic(self._allocator, self._section, self._heap.start, size, count)

    def _row(self, cells, order):
        """Of blocks of the order; where there are smaller ones, a block was split."""
        parts = [{} for _ in range(self._columns)]
        for kind, of_order, sizes, _ in cells.columns:
            if of_order > order or kind == "object":
                continue
            look = (_PAINTS[kind], False) if of_order == order else (_SPLIT, True)
            for part, size in zip(parts, sizes):
                if size:
                    part[look] = part.get(look, 0) + size
        paints = map(strips.dominant, parts)
        may_split = map(self._may_split(order).__contains__, range(self._columns))
        return [paint if paint != _SPLIT or may else None for paint, may in zip(paints, may_split)]

    def _may_split(self, order):
        """The cells in which there can be a block of the order; at its ends the heap has none."""
        size, start = self._heap.page_size << order, self._section.start
        first, last = -(-start // size) * size, (start + self._heap.size) // size * size
        if last <= first:
            return range(0)
        return range((first - start) // self._cell, -(-(last - start) // self._cell))

    def _runs(self, cells):
        free = [cells.sums(cell) for cell in range(self._columns)]
        return [
            strips.faded(_RUN, free_size(sums) / self._cell) if free_size(sums) else None
            for sums in free
        ]

    def _texts(self, zones):
        end = self._heap.start + self._heap.size
        count = strips.zones_for(self._rows)
        places = [
            f"{zones.offset(zone):#x} to {min(zones.offset(zone + 1), end):#x}"
            for zone in range(count)
        ]
        texts = []
        for order in self._heap.orders:
            only = zones._replace(
                columns=tuple(
                    column
                    for column in zones.columns
                    if column.order == order and column.kind != "object"
                )
            )
            texts += [
                _zone_text(place, self._heap, order, only.sums(zone))
                for zone, place in enumerate(places)
            ]
        return texts + [_run_text(place, zones.sums(zone)) for zone, place in enumerate(places)]


def _zone_text(place, heap, order, sums):
    if not sums:
        return ""
    name = frame.order_label(order, heap.page_size)
    stuck = sums.get("stuck", (0, 0))[1]
    more = f", {stuck:,} of them free and cannot merge" if stuck else ""
    return f"{place}, order {name}: {pieces_in_words(sums)}{more}"


def _run_text(place, sums):
    free = free_size(sums)
    return f"{place}: {format_size(free)} free" if free else ""


_PAINTS = {
    "pages": colours.PAGES,
    "slab": colours.SLAB,
    "idle": colours.EMPTY_SLAB,
    "free": _FREE,
    "stuck": _STUCK,
}
