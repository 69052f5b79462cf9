"""What pins this order: the part of the heap where the fewest blocks stand in the way, and these."""

from dataclasses import dataclass

from bsa.pinning import Pins, pins
from bsa.space import spaces
from bsa.svg import FAINT_INK, Drawing
from bsa.units import counted, format_size
from bsa.views import colours, frame, strips
from bsa.views.maps import HeapMap
from bsa.views.strips import Span
from bsa.views.view import View

_ROW, _LINE, _LISTED = 22, 16, 12

_LEGEND = (
    ("page blocks", colours.PAGES),
    ("objects", colours.OBJECT),
    ("free in slabs", colours.SLACK),
    ("empty slabs", colours.EMPTY_SLAB),
    ("lost by rounding", colours.LOSS),
)


def pins_map(allocator, order, *, births=None):
    """The result of bsa.pins(), with a map of the pages it is about. Errors are those of pins()."""
    found = pins(allocator, order, births=births)
    space = spaces(allocator)[found.section]
    window = HeapMap((space,), True, births or {}).rows_between(
        space, found.start, found.start + (found.page_size << order)
    )
    return PinsMap(found, tuple(window))


@dataclass(frozen=True)
class PinsMap(View):
    """The data: the pins, and the spans of the window, in bytes from its beginning."""

    found: Pins
    spans: tuple[Span, ...]

    def picture(self):
        drawing, found = Drawing(), self.found
        size = found.page_size << found.order
        title = f"What pins order {found.order} ({format_size(size)})"
        y = frame.draw_heading(drawing, frame.TOP, title, self._note(), self._legend())
        strips.draw_rows(drawing, strips.Rows(frame.LEFT, y, frame.INNER, _ROW, size), [self.spans])
        axis = frame.Axis(frame.LEFT, frame.RIGHT, found.start, found.start + size)
        ticks = frame.offset_ticks(found.start, found.start + size)
        unit = "offset from the region's first byte"
        frame.draw_marks(drawing, y + _ROW, axis, ticks, frame.offset_label, unit)
        y = self._draw_list(drawing, y + _ROW + 54)
        return drawing.finished(frame.WIDTH, y, title, self._note())

    def _legend(self):
        """What there is in the window; free blocks have many shades."""
        paints = {span.paint for span in self.spans}
        return [
            *((name, paint) for name, paint in _LEGEND if paint in paints),
            ("free", colours.FREE),
        ]

    def _note(self):
        found = self.found
        if not found.pins:
            return "Nothing: such a block is free, or empty slabs are all that is in the way."
        return (
            f"Section {found.section}: freeing {counted(len(found), 'allocation')} of "
            f"{format_size(found.size)} would give such a block, and no fewer would."
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
        ax.set_xlim(0, self.found.page_size << self.found.order)
        ax.set_yticks([])
        ax.set_xlabel(f"offset from {self.found.start:#x} (bytes)")
        ax.set_title(
            f"What pins order {self.found.order}: {counted(len(self.found), 'allocation')}"
        )


def described(pin):
    """A pin in words, with the event that made it if that is known."""
    text = f"{pin.address:#x}: {pin.kind}, {format_size(pin.size)}"
    if pin.birth is None:
        return text
    return (
        f"{text}, {pin.birth.size:,} bytes asked for by event {pin.birth.event:,} "
        f"of thread {pin.birth.thread}"
    )
