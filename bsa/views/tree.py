"""The buddy tree: orders from top to bottom, offsets from left to right.

A block of order k stands in row k over the pages it has; above it stand the splits it came from. A
free block whose buddy is not free as a whole cannot merge: those are what fragmentation is made of.
"""

from dataclasses import dataclass
from itertools import groupby

from bsa.space import Space, spaces
from bsa.svg import Drawing, Paint
from bsa.units import counted, format_size
from bsa.views import colours, frame, strips
from bsa.views.maps import slab_text
from bsa.views.strips import Span
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
    """The tree of one section, by its place in `allocator.sections`; IndexError if there is none."""
    return BuddyTree(spaces(allocator)[section])


@dataclass(frozen=True)
class BuddyTree(View):
    """The data: the extents of a section."""

    space: Space

    def rows(self):
        """Lists of Span in pages of the heap: a row for each order from the top one down to single
        pages, and one for what is free in a row by address."""
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
            return colours.SLAB, slab_text(extent.slab, extent)
        return colours.PAGES, f"page block of {self._name(order)}"

    def _free_look(self, order, page):
        buddy = page ^ (1 << order)
        text = f"free block of {self._name(order)}"
        if buddy < self.space.first_page or buddy + (1 << order) > self.space.end_page:
            return _FREE, f"{text}; its buddy is not in the heap"
        return _STUCK, f"{text}; its buddy at {self._where(buddy)}is in use, or a part of it is"

    def _where(self, page):
        return f"{page * self.space.page_size - self.space.base:#x}: "

    def _name(self, order):
        return f"order {order}, {format_size(self.space.page_size << order)}"

    def picture(self):
        drawing, space = Drawing(), self.space
        note = (
            "A block stands in the row of its order, over the pages it has. One that is free and cannot "
            "merge waits for its buddy, though its neighbours may be free."
        )
        y = frame.draw_heading(drawing, frame.TOP, "Buddy tree", note, _LEGEND)
        rows = self.rows()
        pages = space.end_page - space.first_page
        place = strips.Rows(frame.LEFT, y, frame.INNER, _ROW, pages, gap=2)
        for row, label in enumerate(self._labels()):
            at = y + row * _ROW + 13
            drawing.text(frame.LEFT - 8, at, label, size=11, fill=frame.FAINT_INK, anchor="end")
        strips.draw_rows(drawing, place, rows)
        y += len(rows) * _ROW
        axis = frame.Axis(frame.LEFT, frame.RIGHT, space.heap, space.size)
        ticks = frame.offset_ticks(space.heap, space.size)
        unit = "offset from the region's first byte"
        frame.draw_marks(drawing, y, axis, ticks, frame.offset_label, unit)
        return drawing.finished(frame.WIDTH, y + 44, "Buddy tree", self._description(rows))

    def _labels(self):
        orders = range(self.space.top_order, -1, -1)
        return [*(frame.order_label(order, self.space.page_size) for order in orders), "free runs"]

    def _description(self, rows):
        stuck = [span for row in rows for span in row if span.paint == _STUCK]
        size = sum(span.end - span.start for span in stuck) * self.space.page_size
        return (
            f"Section {self.space.section}, {format_size(self.space.size - self.space.heap)} of heap: "
            f"{counted(len(stuck), 'free block')} of {format_size(size)} cannot merge"
        )

    def _plot(self, ax):
        from bsa.views import figure

        rows = self.rows()
        figure.plot_rows(ax, rows)
        figure.plot_legend(ax, _LEGEND)
        ax.set_xlim(0, self.space.end_page - self.space.first_page)
        ax.set_xlabel(f"offset in the heap (pages of {format_size(self.space.page_size)})")
        ax.set_yticks([row + 0.45 for row in range(len(rows))], self._labels())
        ax.set_ylabel("order: block size")
        ax.set_title("Buddy tree")
