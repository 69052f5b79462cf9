"""Orders over time: how many free blocks of each order there are, and what the indices say of it."""

import math
from dataclasses import dataclass

from bsa.svg import Drawing, Paint
from bsa.timeline import ORDERS, Timeline
from bsa.units import format_size
from bsa.views import colours, frame, strips
from bsa.views.strips import Span
from bsa.views.view import View

_ROW = 11
_STEPS = 240  # along the events
_SHADES = 6
_GROUND = Paint("currentColor", 0.06)

_PANELS = (
    (
        "Free blocks of each order",
        "The stronger, the more: shades are on a scale of logarithms.",
        colours.BLUE,
    ),
    (
        "Unusable free space index",
        "Share of the free memory that cannot serve one block of the order: strongest at 1.",
        colours.VERMILLION,
    ),
    (
        "Fragmentation index, where a request of the order would fail",
        "Towards 0 (pale) for lack of memory, towards 1 (strong) for fragmentation.",
        colours.PURPLE,
    ),
)


def order_map(timeline):
    """Free blocks by order and time, and the two indices of Linux below them, on the same axes."""
    pages = max(timeline.managed // timeline.page_size, 1)
    orders = range(min(pages.bit_length(), ORDERS))  # those that the heap has room for
    return OrderMap(
        timeline,
        tuple(zip(*timeline.free_blocks))[: len(orders)],
        tuple(timeline.unusable_index(order) for order in orders),
        tuple(timeline.extfrag_index(order) for order in orders),
    )


@dataclass(frozen=True)
class OrderMap(View):
    """The data: for each order, from single pages up, the values of all samples."""

    timeline: Timeline
    free_blocks: tuple
    unusable: tuple
    extfrag: tuple

    @property
    def most(self):
        """Free blocks of one order at a time."""
        return max(map(max, self.free_blocks))

    def tables(self):
        """Three tables, [order][sample], of shares from 0 to 1: free counts (on a scale of
        logarithms), unusable index, and fragmentation index (0 where the request succeeds)."""
        most = math.log2(1 + self.most) or 1
        shares = {count: math.log2(1 + count) / most for row in self.free_blocks for count in row}
        free = [list(map(shares.__getitem__, row)) for row in self.free_blocks]
        extfrag = [
            [0.2 + 0.8 * value if value >= 0 else 0 for value in row] for row in self.extfrag
        ]
        return free, self.unusable, extfrag

    def rows(self, table, colour):
        """Spans in events, for each order from the top down."""
        steps = _steps(self.timeline.event)
        return [
            list(_spans(steps, row, colour, f"order {order}"))
            for order, row in reversed(list(enumerate(table)))
        ]

    def picture(self):
        drawing, y = Drawing(), frame.TOP
        for (title, note, colour), table in zip(_PANELS, self.tables()):
            y = frame.draw_heading(drawing, y, title, note, self._legend(colour))
            y = self._draw(drawing, y, self.rows(table, colour)) + 30
        axis = frame.Axis(frame.LEFT, frame.RIGHT, 0, self.timeline.events)
        ticks = frame.event_ticks(self.timeline.events)
        frame.draw_marks(drawing, y - 30, axis, ticks, frame.events_label, "events")
        title = "Free blocks and fragmentation by order"
        return drawing.finished(frame.WIDTH, y + 14, title, repr(self.timeline))

    def _legend(self, colour):
        low, high = colours.shade(colour, 0.01, _SHADES), colours.shade(colour, 1)
        if colour != colours.BLUE:
            return [("0", low), ("1", high)]
        return [("one", low), (f"{self.most:,} blocks", high)]

    def _draw(self, drawing, y, rows):
        extent = max(self.timeline.events, 1)
        place = strips.Rows(frame.LEFT, y, frame.INNER, _ROW, extent, gap=0)
        drawing.rect(place.x, y, place.width, len(rows) * _ROW, _GROUND)
        for row in range((len(rows) - 1) % 2, len(rows), 2):
            order = len(rows) - 1 - row
            label = frame.order_label(order, self.timeline.page_size)
            at = y + row * _ROW + 9
            drawing.text(frame.LEFT - 8, at, label, size=11, fill=frame.FAINT_INK, anchor="end")
        strips.draw_rows(drawing, place, rows, parts=len(_PANELS))
        return y + len(rows) * _ROW

    def _plot(self, ax):
        """The counts of free blocks."""
        scaled = [[math.log2(1 + count) for count in row] for row in self.free_blocks]
        orders = range(len(scaled))
        edges = [0, *self.timeline.event]
        mesh = ax.pcolormesh(edges, range(len(scaled) + 1), scaled, cmap="Blues", vmin=0)
        ax.figure.colorbar(mesh, ax=ax, label="free blocks, log2(1 + count)")
        ax.set_xlabel("events")
        ax.set_yticks(
            [order + 0.5 for order in orders],
            [
                format_size(self.timeline.page_size << order) if order % 2 == 0 else ""
                for order in orders
            ],
        )
        ax.set_ylabel("block size")
        ax.set_title("Free blocks of each order")


def _steps(events):
    """(first sample, sample after the last, first event, last event) of each step along the axis."""
    count = min(_STEPS, len(events))
    bounds = [step * len(events) // count for step in range(count + 1)]
    return [
        (first, end, events[first - 1] if first else 0, events[end - 1])
        for first, end in zip(bounds, bounds[1:])
    ]


def _spans(steps, row, colour, name):
    """Of each run of equal shades one span. A step's shade is that of its highest sample."""
    shades = [colours.shade(colour, max(row[first:end]), _SHADES) for first, end, _, _ in steps]
    start = 0
    for step in range(1, len(steps) + 1):
        if step < len(steps) and shades[step] == shades[start]:
            continue
        if shades[start] is not None:
            first, last = steps[start][2], steps[step - 1][3]
            yield Span(first, last, shades[start], f"{name}, events {first:,} to {last:,}")
        start = step
