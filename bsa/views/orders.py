"""Orders over time: how many free blocks of each order there are, and what the indices say of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from bsa.svg import Drawing, Paint
from bsa.timeline import ORDERS, Timeline
from bsa.units import counted
from bsa.views import colours, frame, strips, view
from bsa.views.strips import Span, Tiles
from bsa.views.view import View

_ROW = 11
_STEPS = 240  # along the events
_SHADES = 6
_GROUND = Paint("currentColor", 0.06)
_PANELS = 3


def order_map(timeline):
    """Free blocks by order and time, and the two indices of Linux below them, on the same axes."""
    view.check("order_map", timeline, Timeline)
    pages = max(timeline.managed // timeline.page_size, 1)
    orders = range(min(pages.bit_length(), ORDERS))  # those that the heap has room for
    return OrderMap(
        timeline,
        tuple(zip(*timeline.free_blocks))[: len(orders)],
        tuple(timeline.unusable_index(order) for order in orders),
        tuple(timeline.extfrag_index(order) for order in orders),
    )


class Panel(NamedTuple):
    """One of the three tables, as it is drawn."""

    title: str
    note: str
    colour: str
    values: tuple  #: [order][sample]
    share: Callable  #: from a value to a shade, 0 (nothing) to 1
    told: Callable  #: what lies from one value to another, in words
    legend: tuple[str, str]  #: what the palest and the strongest shade mean
    nothing: str  #: what it means that there is no shade at all


@dataclass(frozen=True, repr=False)
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

    def panels(self):
        """Free counts (on a scale of logarithms), unusable index, and fragmentation index (nothing
        where the request succeeds)."""
        return (
            Panel(
                "Free blocks of each order",
                "The stronger, the more: shades are on a scale of logarithms.",
                colours.BLUE,
                self.free_blocks,
                lambda count, most=math.log2(1 + self.most) or 1: math.log2(1 + count) / most,
                lambda low, high: _between(f"{low:,}", counted(high, "free block"), low == high),
                ("one", counted(self.most, "block")),
                "nothing is free",
            ),
            Panel(
                "Unusable free space index",
                "Share of the free memory that cannot serve one block of the order: strongest at 1.",
                colours.VERMILLION,
                self.unusable,
                lambda index: index,
                lambda low, high: _between(f"{low:.3f}", f"{high:.3f}", low == high),
                ("0", "1"),
                "all that is free can serve any request",
            ),
            Panel(
                "Fragmentation index, where a request of the order would fail",
                "Towards 0 (pale) for lack of memory, towards 1 (strong) for fragmentation.",
                colours.PURPLE,
                self.extfrag,
                lambda index: 0.2 + 0.8 * index if index >= 0 else 0,
                _failing,
                ("0", "1"),
                "no request would fail",
            ),
        )

    def rows(self, panel):
        """Spans in events, for each order from the top down."""
        steps = _steps(self.timeline.event, _STEPS)
        return [
            list(self._spans(panel, order, steps))
            for order in reversed(range(len(self.free_blocks)))
        ]

    def _spans(self, panel, order, steps):
        """Of each run of equal shades one span. A step's shade is that of its highest sample."""
        highest = [max(panel.values[order][first:end]) for first, end, _, _ in steps]
        shades = [colours.shade(panel.colour, panel.share(value), _SHADES) for value in highest]
        start = 0
        for step in range(1, len(steps) + 1):
            if step < len(steps) and shades[step] == shades[start]:
                continue
            if shades[start] is not None:
                first, last = steps[start][2], steps[step - 1][3]
                text = self._text(panel, order, first, last, highest[start:step])
                yield Span(first, last, shades[start], text)
            start = step

    def _text(self, panel, order, first, last, values):
        name = frame.order_label(order, self.timeline.page_size)
        said = panel.told(min(values), max(values))
        return f"order {name}, events {first:,} to {last:,}: {said}"

    def _content(self, panel):
        """The rows as they are, or cells if those of all panels would be too many spans."""
        rows = self.rows(panel)
        if sum(map(len, rows)) <= strips.MOST_SPANS // _PANELS:
            return rows
        columns = strips.columns_for(len(rows), _PANELS)
        extent = self.timeline.events
        cells = strips.tiles_of(rows, extent, columns)
        zones = _steps(self.timeline.event, strips.zones_for(len(rows), _PANELS))
        texts = [
            self._text(panel, order, start, last, panel.values[order][first:end])
            for order in reversed(range(len(rows)))
            for first, end, start, last in zones
        ]
        return Tiles(cells, columns, extent / columns, texts)

    def picture(self):
        drawing, y = Drawing(), frame.TOP
        for panel in self.panels():
            low, high = colours.shade(panel.colour, 0.01, _SHADES), colours.shade(panel.colour, 1)
            legend = tuple(zip(panel.legend, (low, high)))
            y = frame.draw_heading(drawing, y, panel.title, panel.note, legend)
            y = self._draw(drawing, y, self._content(panel), panel.nothing) + 30
        axis = frame.Axis(frame.LEFT, frame.RIGHT, 0, self.timeline.events)
        ticks = frame.event_ticks(self.timeline.events)
        frame.draw_marks(drawing, y - 30, axis, ticks, frame.events_label, "events")
        title = "Free blocks and fragmentation by order"
        return drawing.finished(frame.WIDTH, y + 14, title, repr(self.timeline))

    def _draw(self, drawing, y, content, nothing):
        orders = len(self.free_blocks)
        extent = max(self.timeline.events, 1)
        place = strips.Rows(frame.LEFT, y, frame.INNER, _ROW, extent, gap=0)
        drawing.rect(place.x, y, place.width, orders * _ROW, _GROUND)
        for row in range((orders - 1) % 2, orders, 2):
            label = frame.order_label(orders - 1 - row, self.timeline.page_size)
            at = y + row * _ROW + 9
            drawing.text(frame.LEFT - 8, at, label, size=11, fill=frame.FAINT_INK, anchor="end")
        strips.draw(drawing, place, content)
        if not isinstance(content, Tiles) and not any(content):
            middle = frame.LEFT + frame.INNER / 2, y + orders * _ROW / 2 + 4
            drawing.text(*middle, nothing, fill=frame.FAINT_INK, anchor="middle")
        return y + orders * _ROW

    def _plot(self, ax):
        """All three below each other, on one axis of events."""
        from bsa.views import figure

        events = [0, *self.timeline.event]
        page_size = self.timeline.page_size
        labels = [frame.order_label(order, page_size) for order in range(len(self.free_blocks))]
        groups = [
            (
                panel.title,
                [list(map(panel.share, row)) for row in panel.values],
                panel.colour,
                panel.legend[1],
            )
            for panel in self.panels()
        ]
        figure.plot_shares(ax, events, groups, labels)
        ax.set_xlabel("events")
        ax.set_ylabel("order: block size")
        ax.set_title("Free blocks and fragmentation by order")


def _between(low, high, are_equal):
    return high if are_equal else f"{low} to {high}"


def _failing(low, high):
    """Fragmentation indices; below 0 the request would succeed."""
    if high < 0:
        return "would succeed"
    if low < 0:
        return f"would succeed at times, else up to {high:.3f}"
    return _between(f"{low:.3f}", f"{high:.3f}", low == high)


def _steps(events, most):
    """(first sample, sample after the last, first event, last event) of each step along the axis."""
    count = min(most, len(events))
    bounds = [step * len(events) // count for step in range(count + 1)]
    return [
        (first, end, events[first - 1] if first else 0, events[end - 1])
        for first, end in zip(bounds, bounds[1:])
    ]
