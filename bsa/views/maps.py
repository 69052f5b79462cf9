"""The heap map: every byte of the regions at its true place, coloured by what it is used for."""

from dataclasses import dataclass

from bsa.space import Space, spaces
from bsa.svg import FAINT_INK, Drawing
from bsa.units import counted, format_size, percent
from bsa.views import colours, frame, strips
from bsa.views.strips import Span
from bsa.views.view import View

_ROW = 13
_SECTIONS = 8  # at most are drawn


def heap_map(allocator, *, objects=False, births=None):
    """A map of the heap: by pages, or with `objects` down to the objects in slabs.

    `births`, what replay_births() returned, tells what was asked for: then what rounding up loses has
    a colour of its own, and the pointer shows the events. The SVG shows up to eight sections, plot()
    the first one.
    """
    return HeapMap(tuple(spaces(allocator)), objects, births or {})


@dataclass(frozen=True)
class HeapMap(View):
    """The data: extents of the sections, and what is known of their allocations."""

    spaces: tuple[Space, ...]
    objects: bool
    births: dict

    def rows(self, space):
        """The spans of a section in rows of `row_bytes(space)`: lists of Span, in bytes."""
        return _in_rows(self._spans(space), self.row_bytes(space), space.size)

    def rows_between(self, space, start, end):
        """The spans of the bytes from `start` to `end` in one row."""
        for span in self._spans(space):
            if span.start < end and span.end > start:
                first, last = max(span.start, start), min(span.end, end)
                yield span._replace(start=first - start, end=last - start)

    def row_bytes(self, space):
        """A power of two, so that blocks begin at the same place in each row."""
        most = 48 if self.objects else 24
        size = space.page_size
        while -(-space.size // size) > most:
            size *= 2
        return size

    def _spans(self, space):
        for extent in space.extents:
            yield from self._extent_spans(space, extent)

    def _extent_spans(self, space, extent):
        where = f"{extent.start:#x}: "
        if extent.kind == "slab":
            yield from self._slab_spans(space, extent, where)
        elif extent.kind == "free":
            paint = colours.free_paint(extent.order, space.top_order)
            text = f"{where}free block of order {extent.order}, {format_size(extent.size)}"
            yield Span(extent.start, extent.end, paint, text, True)
        elif extent.kind == "metadata":
            text = f"{where}metadata, {format_size(extent.size)}"
            yield Span(extent.start, extent.end, colours.METADATA, text)
        else:
            name = "page block" if extent.kind == "pages" else f"page block ({extent.kind})"
            yield from self._granted(
                extent.start, extent.size, space.base, colours.PAGES, f"{where}{name}"
            )

    def _slab_spans(self, space, extent, where):
        slab = extent.slab
        if extent.is_idle:
            text = f"{where}empty slab for {slab.size}-byte objects, {format_size(slab.nbytes)}"
            yield Span(extent.start, extent.end, colours.EMPTY_SLAB, text)
        elif not self.objects:
            yield Span(extent.start, extent.end, colours.SLAB, where + slab_text(slab, extent))
        else:
            yield from self._object_spans(space, extent, where)

    def _object_spans(self, space, extent, where):
        """Live objects, and what is free between them as one piece each."""
        slab, position = extent.slab, extent.start
        idle = f"{where}slab for {slab.size}-byte objects: free here"
        for address, _, _ in extent.live:
            start = address - space.base
            if start > position:
                yield Span(position, start, colours.SLACK, idle, True)
            name = f"{start:#x}: object"
            yield from self._granted(start, slab.size, space.base, colours.OBJECT, name)
            position = start + slab.size
        if position < extent.end:
            yield Span(position, extent.end, colours.SLACK, idle, True)

    def _granted(self, start, size, base, paint, name):
        """An allocation; where it is known what was asked for, with its rounding loss apart."""
        birth = self.births.get(base + start)
        if birth is None:
            yield Span(start, start + size, paint, f"{name}, {format_size(size)}")
            return
        text = (
            f"{name}: {birth.size:,} bytes asked for, {size:,} granted; event {birth.event:,}, "
            f"thread {birth.thread}"
        )
        asked = start + min(max(birth.size, 1), size)
        yield Span(start, asked, paint, text)
        if asked < start + size:
            yield Span(asked, start + size, colours.LOSS, f"lost by rounding up, {text}")

    def picture(self):
        drawing = Drawing()
        note = (
            "Lowest address first; offsets are from the first byte of the region. Free blocks are the "
            "stronger, the larger."
        )
        y = frame.draw_heading(drawing, frame.TOP, "Heap map", note, self._legend())
        for space in self.spaces[:_SECTIONS]:
            y = self._draw(drawing, y, space)
        others = len(self.spaces[_SECTIONS:])
        if others:
            drawing.text(frame.LEFT, y + 4, counted(others, "more section"), fill=FAINT_INK)
            y += 16
        return drawing.finished(frame.WIDTH, y, "Heap map", self._description())

    def _legend(self):
        legend = [("metadata", colours.METADATA), ("page blocks", colours.PAGES)]
        if self.objects:
            legend += [("objects", colours.OBJECT), ("free in slabs", colours.SLACK)]
        else:
            legend.append(("slabs", colours.SLAB))
        legend.append(("empty slabs", colours.EMPTY_SLAB))
        if self.births:
            legend.append(("lost by rounding", colours.LOSS))
        return [*legend, ("free", colours.FREE)]

    def _draw(self, drawing, y, space):
        rows, row_bytes = self.rows(space), self.row_bytes(space)
        caption = (
            f"Section {space.section}: {format_size(space.size)} at {space.base:#x}, "
            f"{format_size(row_bytes)} a row"
        )
        drawing.text(frame.LEFT, y + 10, caption, fill=FAINT_INK)
        place = strips.Rows(frame.LEFT, y + 18, frame.INNER, _ROW, row_bytes)
        for row in range(0, len(rows), 2):
            label = frame.offset_label(row * row_bytes)
            at = place.y + row * _ROW + 10
            drawing.text(frame.LEFT - 8, at, label, size=11, fill=FAINT_INK, anchor="end")
        strips.draw_rows(drawing, place, rows, parts=min(len(self.spaces), _SECTIONS))
        return place.y + len(rows) * _ROW + 16

    def _description(self):
        return "; ".join(map(shares, self.spaces))

    def _plot(self, ax):
        """The first section."""
        from bsa.views import figure

        space = self.spaces[0]
        figure.plot_rows(ax, self.rows(space))
        figure.plot_legend(ax, self._legend())
        row_bytes = self.row_bytes(space)
        ax.set_xlim(0, row_bytes)
        ax.set_xlabel(f"offset in a row of {format_size(row_bytes)} (bytes)")
        ax.yaxis.set_major_formatter(lambda row, _: frame.offset_label(int(row * row_bytes)))
        ax.set_ylabel("offset from the region's first byte")
        ax.set_title("Heap map")


def slab_text(slab, extent):
    live = counted(len(extent.live), "object")
    return (
        f"slab of slot {slab.cpu}, {slab.state}: {live} of {slab.size} bytes live, "
        f"room for {slab.capacity}, {format_size(slab.nbytes)}"
    )


def shares(space):
    """What a section is used for, in words."""
    sums = {}
    for extent in space.extents:
        kind = "empty slabs" if extent.is_idle else _NAMES.get(extent.kind, "page blocks")
        sums[kind] = sums.get(kind, 0) + extent.size
    parts = ", ".join(f"{percent(size, space.size)} {kind}" for kind, size in sums.items())
    return f"section {space.section} of {format_size(space.size)}: {parts}"


_NAMES = {"metadata": "metadata", "free": "free", "slab": "slabs"}


def _in_rows(spans, row_bytes, size):
    """Spans cut at the ends of rows, and counted from the beginning of theirs."""
    rows = [[] for _ in range(-(-size // row_bytes))]
    for span in spans:
        row, start = divmod(span.start, row_bytes)
        left = span.end - span.start
        while left > 0:
            length = min(left, row_bytes - start)
            rows[row].append(span._replace(start=start, end=start + length))
            row, start, left = row + 1, 0, left - length
    return rows
