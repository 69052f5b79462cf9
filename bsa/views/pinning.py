"""What pins this order: the part of the heap where the fewest blocks stand in the way, and these."""

from dataclasses import dataclass

from bsa._core import Allocator
from bsa.mosaic import mosaic
from bsa.pinning import Pins, pins
from bsa.space import spaces
from bsa.svg import FAINT_INK, Drawing
from bsa.units import counted, format_size
from bsa.views import colours, frame, pieces, strips, tiles, view
from bsa.views.strips import Span, Tiles
from bsa.views.view import View

_ROW, _LINE, _LISTED = 22, 16, 12

_LEGEND = (
    ("page blocks", colours.PAGES),
    ("objects", colours.OBJECT),
    ("unused in slabs", colours.SLACK),
    ("empty slabs", colours.EMPTY_SLAB),
    ("lost by rounding", colours.LOSS),
)


def pins_map(allocator, order, *, births=None):
    """The result of bsa.pins(), with a map of the pages it is about. Errors are those of pins()."""
    view.check("pins_map", allocator, Allocator)
    found = pins(allocator, order, births=births)
    size = found.page_size << order
    section = allocator.sections[found.section]
    sums = mosaic(allocator, section, found.start, size, 1).sums()
    if (
        sum(count for _, count in sums.values()) > strips.MOST_SPANS // 3
    ):  # of an object up to three
        content = tiles.heap_tiles(
            allocator, section, found.start, size, size, objects=True, births=births or {}
        )
    else:
        start, end = found.start, found.start + size
        base = section.region_start
        space = spaces(allocator, base + start, base + end)[found.section]
        content = [list(pieces.spans_between(space, start, end, births or {}))]
    return PinsMap(found, content)


@dataclass(frozen=True, repr=False)
class PinsMap(View):
    """The data: the pins, and the window: a row of Spans in bytes from its beginning, or Tiles."""

    found: Pins
    content: list[list[Span]] | Tiles

    @property
    def spans(self):
        """The row."""
        (row,) = self.content.rows if isinstance(self.content, Tiles) else self.content
        return row

    def picture(self):
        drawing, found = Drawing(), self.found
        size = found.page_size << found.order
        title = f"What pins order {found.order} ({format_size(size)})"
        y = frame.draw_heading(drawing, frame.TOP, title, self._note(), self._legend())
        strips.draw(drawing, strips.Rows(frame.LEFT, y, frame.INNER, _ROW, size), self.content)
        axis = frame.Axis(frame.LEFT, frame.RIGHT, found.start, found.start + size)
        ticks = frame.offset_ticks(found.start, found.start + size)
        unit = "offset from the region's first byte"
        frame.draw_marks(drawing, y + _ROW, axis, ticks, frame.offset_label, unit)
        y = self._draw_list(drawing, y + _ROW + 54)
        return drawing.finished(frame.WIDTH, y, title, self._note())

    def _legend(self):
        return [*strips.occurring(_LEGEND, [self.spans]), ("free", colours.FREE)]

    def _note(self):
        found = self.found
        if not found.pins:
            return "Nothing does: such a block is already free, or will be by trim()."
        if len(found) == 1:
            return (
                f"Section {found.section}: freeing one allocation, {format_size(found.size)}, "
                "would give such a block."
            )
        return (
            f"Section {found.section}: freeing {len(found):,} allocations, "
            f"{format_size(found.size)} together, would give such a block, and no fewer would."
        )

    def _draw_list(self, drawing, y):
        for pin in self.found.pins[:_LISTED]:
            drawing.text(frame.LEFT, y, described(pin), size=12, fill=FAINT_INK)
            y += _LINE
        if len(self.found) > _LISTED:
            more = f"and {len(self.found) - _LISTED:,} more"
            drawing.text(frame.LEFT, y, more, size=12, fill=FAINT_INK)
            y += _LINE
        return y

    def _plot(self, ax):
        from bsa.views import figure

        figure.plot_rows(ax, [self.spans])
        figure.plot_legend(ax, self._legend())
        size = self.found.page_size << self.found.order
        ax.set_xlim(0, size)
        ax.set_yticks([])
        figure.label_bytes(ax.xaxis, frame.byte_ticks(size, 4))
        ax.set_xlabel(f"offset from {self.found.start:#x}")
        count = counted(len(self.found), "allocation") if self.found.pins else "none, already free"
        ax.set_title(f"What pins order {self.found.order}: {count}")


def described(pin):
    """A pin in words, with the event that made it if that is known."""
    text = f"{pin.address:#x}: {pin.kind}, {format_size(pin.size)}"
    if pin.birth is None:
        return text
    return (
        f"{text}, {counted(pin.birth.size, 'byte')} asked for by event {pin.birth.event:,} "
        f"of thread {pin.birth.thread}"
    )
