"""Histograms of a trace: the sizes asked for, and how long blocks live."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from bsa.svg import FAINT_INK, Drawing, Paint
from bsa.trace import Trace
from bsa.units import counted, format_size, percent
from bsa.views import colours, frame, view
from bsa.views.view import View

_HEIGHT = 150
_GAP = 40
_MOST_LABELS = 12  # by matplotlib


def histograms(trace):
    """Sizes and lifetimes of a trace, by powers of two."""
    view.check("histograms", trace, Trace)
    return Histograms(trace.statistics())


class Panel(NamedTuple):
    """One histogram."""

    title: str
    note: str
    histogram: dict  #: {power of two: count}
    noun: str  #: what is counted
    label: Callable  #: from a power of two to text
    colour: str


@dataclass(frozen=True, repr=False)
class Histograms(View):
    """The data: a trace's statistics."""

    statistics: object

    def panels(self):
        """The two."""
        s = self.statistics
        sizes = f"median {format_size(s.sizes.median)}, at most {format_size(s.sizes.most)}"
        lifetimes = (
            f"median {counted(s.lifetimes.median, 'event')}; "
            f"{counted(s.survivors, 'block')} never freed"
        )
        return (
            Panel(
                "Sizes asked for", sizes, s.sizes.histogram, "request", format_size, colours.BLUE
            ),
            Panel(
                "Lifetimes in events",
                lifetimes,
                s.lifetimes.histogram,
                "freed block",
                _short,
                colours.GREEN,
            ),
        )

    def picture(self):
        drawing = Drawing()
        note = "Bars: up to that much, and more than half of it."
        y = frame.draw_heading(drawing, frame.TOP, "Sizes and lifetimes", note) + 34
        width = (frame.RIGHT - frame.MARGIN - _GAP) / 2
        for index, panel in enumerate(self.panels()):
            _draw(drawing, frame.MARGIN + index * (width + _GAP), y, width, panel)
        height = y + _HEIGHT + 46
        words = ". ".join(f"{_total(panel)}, {panel.note}" for panel in self.panels())
        return drawing.finished(frame.WIDTH, height, "Sizes and lifetimes", words)

    def _plot(self, ax):
        """The sizes; lifetimes by plot_lifetimes()."""
        _plot_panel(ax, self.panels()[0], "size asked for")

    def plot_lifetimes(self, ax=None):
        """As plot(), the lifetimes."""
        from bsa.views.figure import axes

        ax = axes(ax)
        _plot_panel(ax, self.panels()[1], "lifetime in events")
        return ax


def bars(histogram):
    """(power of two, count) of all powers from the least to the most, those of 0 included."""
    if not histogram:
        return []
    bits = range(min(histogram).bit_length(), max(histogram).bit_length() + 1)
    powers = [1 << bit - 1 if bit else 0 for bit in bits]
    return [(power, histogram.get(power, 0)) for power in powers]


def _draw(drawing, x, y, width, panel):
    _, _, histogram, noun, label, colour = panel
    drawing.text(x, y - 22, _total(panel), size=12)
    drawing.text(x, y - 6, panel.note, size=11, fill=FAINT_INK)
    items = bars(histogram)
    most, total = max(histogram.values(), default=1), sum(histogram.values())
    left = x + 44
    up = frame.Axis(y + _HEIGHT, y + 6, 0, most)
    ticks = range(0, most + 1, frame.decimal_step(most / 4))
    frame.draw_levels(drawing, up, ticks, frame.events_label, left, x + width)
    step = (width - 44) / max(len(items), 8)
    every = -(-52 // int(step))  # labels need some room
    for index, (power, count) in enumerate(items):
        at = left + index * step
        text = f"up to {label(power)}: {counted(count, noun)}, {percent(count, total)}"
        height = max(up(0) - up(count), 0.8 if count else 0)
        drawing.rect(at + 1, up(0) - height, step - 2, height, Paint(colour), title=text)
        if index % every == 0:
            middle = at + step / 2
            name = label(power)
            drawing.text(middle, up(0) + 16, name, size=11, fill=FAINT_INK, anchor="middle")


def _plot_panel(ax, panel, unit):
    items = bars(panel.histogram)
    ax.bar(range(len(items)), [count for _, count in items], color=panel.colour)
    every = -(-len(items) // _MOST_LABELS)
    labelled = range(0, len(items), max(every, 1))
    ax.set_xticks(labelled, [panel.label(items[index][0]) for index in labelled], rotation=45)
    ax.set_xlabel(f"{unit}, up to")
    ax.set_ylabel(f"{panel.noun}s")
    ax.set_title(panel.title)


def _total(panel):
    return f"{panel.title}: {counted(sum(panel.histogram.values()), panel.noun)}"


def _short(count):
    """A number, short: 2^20 is 1 Mi."""
    for unit, size in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
