"""What surrounds a view: heading, legend, axes with round numbers and units."""

from typing import NamedTuple

from bsa.svg import FAINT_INK, GRID, text_width
from bsa.units import format_size

WIDTH, MARGIN = 1080, 16
LABELS = 76  # room for an axis's labels, at the left
LEFT, RIGHT = MARGIN + LABELS, WIDTH - MARGIN - 12  # the last label of an axis reaches beyond
INNER = RIGHT - LEFT
TOP = 26  # the baseline of a picture's first heading

_SMALL = 11


def fitted(text, size, width):
    """`text`, cut in the middle if it would not fit."""
    room = int(width / text_width("x", size))
    if len(text) <= room:
        return text
    return f"{text[:room // 2 - 1]}…{text[-(room - room // 2 - 1):]}"


def draw_heading(drawing, y, title, note="", legend=()):
    """A title with its legend at the right, (name, Paint) each, and a note below; returns where
    what follows begins."""
    drawing.text(MARGIN, y, title, size=15, weight="bold")
    x = RIGHT
    for name, paint in reversed(legend):
        x -= text_width(name, 12)
        drawing.text(x, y, name, fill=FAINT_INK)
        x -= 18
        drawing.rect(x, y - 10, 12, 12, paint, radius=2)
        x -= 14
    if note:
        drawing.text(MARGIN, y + 19, fitted(note, 12, RIGHT - MARGIN), fill=FAINT_INK)
    return y + (34 if note else 16)


class Axis(NamedTuple):
    """Maps `low` to `start` and `high` to `end`, linearly."""

    start: float
    end: float
    low: float
    high: float

    def __call__(self, value):
        share = (value - self.low) / ((self.high - self.low) or 1)
        return self.start + (self.end - self.start) * share


def draw_levels(drawing, axis, ticks, label, left=LEFT, right=RIGHT):
    """Horizontal grid lines at the ticks of a vertical axis, labelled at the left."""
    for tick in ticks:
        y = axis(tick)
        drawing.line(left, y, right, y, GRID)
        drawing.text(left - 8, y + 4, label(tick), size=_SMALL, fill=FAINT_INK, anchor="end")


def draw_marks(drawing, y, axis, ticks, label, unit=""):
    """Marks below `y` at the ticks of a horizontal axis, with labels, and the unit under them."""
    for tick in ticks:
        x = axis(tick)
        drawing.line(x, y, x, y + 5, FAINT_INK)
        if text := label(tick):
            drawing.text(x, y + 18, text, size=_SMALL, fill=FAINT_INK, anchor="middle")
    if unit:
        x = max(axis.start, axis.end)
        drawing.text(x, y + 34, unit, size=_SMALL, fill=FAINT_INK, anchor="end")


def byte_ticks(top, count=5):
    """Round numbers of bytes from 0 to `top`: multiples of a power of two, about `count`."""
    step = 1 << max(int(top / count) - 1, 0).bit_length()
    return range(0, int(top) + 1, step)


def offset_ticks(low, high, count=8):
    """Round offsets between two: multiples of a power of two, about `count`."""
    step = 1 << max(int((high - low) / count) - 1, 1).bit_length()
    return range(-(-low // step) * step, high, step)


def event_ticks(events, count=8):
    """Round numbers of events: multiples of 1, 2 or 5 times a power of ten."""
    return range(0, events + 1, decimal_step(events / count))


def decimal_step(atleast):
    """The next of 1, 2, 5, 10, 20, ..."""
    scale = 1
    while True:
        for step in (scale, 2 * scale, 5 * scale):
            if step >= atleast:
                return step
        scale *= 10


def events_label(event):
    return f"{event:,}"


def offset_label(offset):
    """A place in memory, exactly: hexadecimal digits count bytes."""
    return f"{offset:#x}"


def order_label(order, page_size):
    return f"{order}: {format_size(page_size << order)}"


def telling_samples(values, steps):
    """Indices of the samples worth drawing: all, or where there are more than two a step, the first
    and last, and the lowest and highest of each step."""
    if len(values) <= 2 * steps:
        return range(len(values))
    chosen = {0, len(values) - 1}
    for step in range(steps):
        part = range(step * len(values) // steps, (step + 1) * len(values) // steps)
        chosen |= {min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    return sorted(chosen)
