"""What if I ask for N bytes? For every size: would it be granted now, from where, at which loss."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from bsa._core import MAX_ORDER, Allocator, current_cpu
from bsa.space import free_after_trim, free_spaces
from bsa.svg import FAINT_INK, INK, Drawing, Paint
from bsa.units import format_size
from bsa.views import colours, frame, view
from bsa.views.view import View

_HEIGHT = 200
_GRANTED, _REFUSED = Paint(colours.BLUE), Paint(colours.VERMILLION, 0.35)
_LEGEND = (("granted", _GRANTED), ("refused", _REFUSED))


class Range(NamedTuple):
    """Sizes that are served alike."""

    least: int  #: bytes
    most: int
    served: int  #: bytes that such a request gets
    source: str  #: a free object, a page for a new slab, a free block, or why there is none
    is_granted: bool

    def loss(self, size):
        """The share of what is served that was not asked for."""
        return 1 - size / self.served


def request_curve(allocator):
    """What the calling thread would get for each size at this moment, exactly; nothing is allocated.

    As an allocation does before it fails, it takes empty slabs for free pages; the allocator's limit
    counts, its on_oom is not asked.
    """
    view.check("request_curve", allocator, Allocator)
    return RequestCurve(tuple(_ranges(allocator)))


@dataclass(frozen=True, repr=False)
class RequestCurve(View):
    """The data: ranges of sizes, from one byte to the largest block there could be."""

    ranges: tuple[Range, ...]

    def of(self, size):
        """The Range of a size in bytes; LookupError beyond the largest block."""
        for part in self.ranges:
            if max(size, 1) <= part.most:
                return part
        raise LookupError(f"{size} bytes are more than any block of this heap has")

    @property
    def largest(self):
        """The most bytes that would be granted; 0: none."""
        return max((part.most for part in self.ranges if part.is_granted), default=0)

    def picture(self):
        drawing = Drawing()
        y = frame.draw_heading(
            drawing, frame.TOP, "What if I ask for N bytes?", self._note(), _LEGEND
        )
        y += 8
        across = frame.Axis(frame.LEFT, frame.RIGHT, 0, math.log2(self.ranges[-1].most))
        up = frame.Axis(y + _HEIGHT, y, 0, 1)
        frame.draw_levels(
            drawing, up, (0, 0.25, 0.5, 0.75, 1), lambda share: f"{100 * share:.0f} %"
        )
        for part in self.ranges:
            _draw_range(drawing, across, up, part)
        if self.largest:
            _draw_largest(drawing, across, up, self.largest)
        ticks = range(0, int(across.high) + 1, 2)
        unit = "bytes asked for; the height is the share of the bytes served that was not asked for"
        frame.draw_marks(drawing, y + _HEIGHT, across, ticks, lambda k: format_size(1 << k), unit)
        title = "What if I ask for N bytes?"
        return drawing.finished(frame.WIDTH, y + _HEIGHT + 44, title, self._note())

    def _note(self):
        if not self.largest:
            return "No request would be granted."
        refused = [part for part in self.ranges if not part.is_granted and part.most < self.largest]
        holes = f", but not {_listed(refused)}" if refused else ""
        return f"The largest request that would be granted: {format_size(self.largest)}{holes}."

    def _plot(self, ax):
        from bsa.views import figure

        for part in self.ranges:
            sizes = sizes_of(part)
            losses = [100 * part.loss(size) for size in sizes]
            ax.fill_between(sizes, losses, color=figure.rgba(_paint(part)), linewidth=0)
        figure.plot_legend(ax, _LEGEND)
        ax.axvline(max(self.largest, 1), color=figure.rgba(INK), linestyle="--", linewidth=1)
        ax.set_xscale("log", base=2)
        ax.set_ylim(0, 100)
        ax.set_xlabel("bytes asked for")
        ax.set_ylabel("lost by rounding (%)")
        ax.set_title("What if I ask for N bytes?")


def sizes_of(part, steps=8):
    """A few sizes of a range, evenly spaced on the axis of logarithms."""
    low, high = math.log2(part.least), math.log2(part.most)
    middle = {round(2 ** (low + (high - low) * step / steps)) for step in range(1, steps)}
    return sorted({part.least, part.most, *middle})


def _paint(part):
    return _GRANTED if part.is_granted else _REFUSED


def _draw_range(drawing, across, up, part):
    """Its losses as an area. One byte more than the range before: no gap between them."""
    start = max(part.least - 1, 1)
    curve = [(across(math.log2(size)), up(part.loss(size))) for size in sizes_of(part)]
    points = [(across(math.log2(start)), up(0)), *curve, (curve[-1][0], up(0))]
    text = (
        f"{part.least:,} to {part.most:,} bytes: {part.served:,} bytes, at most "
        f"{100 * part.loss(part.least):.0f} % lost; {part.source}"
    )
    drawing.polygon(points, _paint(part), title=text)
    if not part.is_granted:
        x, width = points[0][0], curve[-1][0] - points[0][0]
        refused = _REFUSED._replace(opacity=0.12)
        drawing.rect(x, up(1), width, up(0) - up(1), refused, title=text)


def _draw_largest(drawing, across, up, largest):
    x = across(math.log2(largest))
    near_end = x > frame.RIGHT - 140
    drawing.line(x, up(1), x, up(0), INK, dash="4 3")
    text, side = f"largest: {format_size(largest)}", -6 if near_end else 6
    anchor = "end" if near_end else None
    drawing.text(x + side, up(1) + 12, text, size=11, fill=FAINT_INK, anchor=anchor)


def _listed(parts):
    return ", ".join(f"{part.least:,} to {part.most:,} bytes" for part in parts[:4])


# ---- What is there ----


def _ranges(allocator):
    sections = free_spaces(allocator)
    orders = [
        order for space in sections for order, blocks in enumerate(free_after_trim(space)) if blocks
    ]
    room = _room(allocator, sections)
    largest = min(max(orders, default=-1), room.bit_length() - 1)
    in_slabs = _free_sizes(allocator)
    least = 1
    for size in allocator.size_classes:
        yield _small(least, size, size in in_slabs, largest >= 0)
        least = size + 1
    top = max((space.top_order for space in sections), default=0)
    for order in range(min(top, MAX_ORDER) + 1):
        most = allocator.page_size << order
        if most >= least:
            yield _pages(least, most, order, order <= largest)
            least = most + 1


def _room(allocator, sections):
    """Pages that the limit leaves, once idle slabs are given back: as many as any block has, or less."""
    if allocator.limit is None:
        return 1 << MAX_ORDER
    idle = sum(extent.size for space in sections for extent in space.extents if extent.is_idle)
    return max(allocator.limit - allocator.allocated_bytes + idle, 0) // allocator.page_size


def _free_sizes(allocator):
    """Object sizes of which the calling thread's slot has a free object."""
    slot = current_cpu() % allocator.cpus
    return {
        slab.size
        for slab in allocator.slabs()
        if slab.cpu == slot and slab.free_count + slab.remote_free_count > 0
    }


def _small(least, size, has_object, has_page):
    if has_object:
        source = f"a free object of the class of {size} bytes"
    elif has_page:
        source = f"a new slab for the class of {size} bytes"
    else:
        source = "no free object of the class, and no page to be had"
    return Range(least, size, size, source, has_object or has_page)


def _pages(least, most, order, is_granted):
    source = f"a block of order {order}" if is_granted else f"no block of order {order} to be had"
    return Range(least, most, most, source, is_granted)
