"""A comparison as bars: what each heap needs for the same trace, and what it is needed for."""

from dataclasses import dataclass
from typing import NamedTuple

from bsa.compare import Comparison, name_of
from bsa.svg import FAINT_INK, INK, Drawing, Paint
from bsa.timeline import fullest
from bsa.units import format_size, printable
from bsa.views import colours, frame, view
from bsa.views.view import View

MOST_ROWS = 60  #: are shown; of further ones only the number is told

_ROW, _BAR = 26, 18
_NAMES = 200  # width of the names
_NOTES = 170

_PARTS = (
    ("requested", "requested", colours.REQUESTED),
    ("size classes", "class_rounding", colours.LOSS),
    ("powers of two", "page_rounding", Paint(colours.PURPLE)),
    ("unused in slabs", "slab_slack", colours.HELD),
    ("free", "free", colours.FREE),
)
_METADATA, _REFERENCE = colours.METADATA, Paint(colours.SKY)


class Bar(NamedTuple):
    """One row of a comparison."""

    name: str
    parts: tuple  #: (what, bytes, Paint), from the left
    note: str  #: what stands behind the bar; for a failure, why there is none


def comparison_bars(comparison):
    """Bars for the rows of a bsa.Comparison."""
    view.check("comparison_bars", comparison, Comparison)
    note = "Bytes, when most of the pages are in use."
    return ComparisonBars(tuple(map(_bar, comparison.rows)), comparison.trace_peak, note)


@dataclass(frozen=True, repr=False)
class ComparisonBars(View):
    """The data: bars, and the most bytes live in the trace."""

    bars: tuple[Bar, ...]
    trace_peak: int
    note: str  #: what the bytes are

    @property
    def shown(self):
        """The bars that the picture has room for."""
        return self.bars[:MOST_ROWS]

    @property
    def top(self):
        """The most bytes that one of these stands for."""
        return max([1, *(sum(size for _, size, _ in bar.parts) for bar in self.shown)])

    def picture(self):
        drawing = Drawing()
        peak = f"The line is the trace's peak: {format_size(self.trace_peak)} live."
        note = f"{self.note} {peak}"
        y = frame.draw_heading(drawing, frame.TOP, "What each heap needs", note, self._legend())
        left = frame.MARGIN + _NAMES
        axis = frame.Axis(left, frame.RIGHT - _NOTES, 0, self.top)
        end = y + _ROW * len(self.shown)
        for index, bar in enumerate(self.shown):
            _draw_bar(drawing, y + index * _ROW, axis, bar, axis(self.trace_peak))
        frame.draw_marks(drawing, end, axis, frame.byte_ticks(self.top, 8), format_size)
        words = "; ".join([*(f"{bar.name}: {bar.note}" for bar in self.shown), *self._more()])
        for text in self._more():
            drawing.text(left - 8, end + 16, text, fill=FAINT_INK, anchor="end")
        return drawing.finished(frame.WIDTH, end + 30, "What each heap needs", words)

    def _more(self):
        """What stands for the bars that are not shown, if there are any."""
        hidden = len(self.bars) - len(self.shown)
        return [f"and {hidden:,} more"] if hidden else []

    def _legend(self):
        """The paints there are, by the first name of each; none if they tell nothing apart."""
        names = {}
        for bar in self.bars:
            for what, _, paint in bar.parts:
                names.setdefault(paint, what)
        return [(what, paint) for paint, what in names.items()] if len(names) > 1 else []

    def _plot(self, ax):
        from bsa.views import figure

        for row, bar in enumerate(self.bars):
            start = 0
            for _, size, paint in bar.parts:
                ax.barh(row, size / 2**20, left=start / 2**20, color=figure.rgba(paint))
                start += size
        ax.axvline(self.trace_peak / 2**20, color=figure.rgba(INK), linestyle="--", linewidth=1)
        ax.set_yticks(range(len(self.bars)), [bar.name for bar in self.bars])
        ax.invert_yaxis()
        if legend := self._legend():
            figure.plot_legend(ax, legend)
        ax.set_xlabel("memory (MiB)")
        ax.set_title("What each heap needs")


def _draw_bar(drawing, y, axis, bar, peak):
    name = frame.fitted(bar.name, 12, _NAMES - 16)
    drawing.text(axis.start - 8, y + 13, name, anchor="end")
    end = 0
    for what, size, paint in bar.parts:
        x, end = axis(end), end + size
        text = f"{bar.name}: {format_size(size)} {what}"
        drawing.rect(x, y, axis(end) - x, _BAR, paint, title=text)
    if bar.parts:
        drawing.line(peak, y - 4, peak, y + _ROW - 4, INK, dash="4 3")
    room = frame.RIGHT - axis(end) - 8
    note = frame.fitted(bar.note, 11, room)
    drawing.text(axis(end) + 8, y + 13, note, size=11, fill=FAINT_INK)


def _bar(row):
    name = name_of(row)
    if row.error:
        return Bar(name, (), printable(row.error, 400))
    size = row.metrics["size"]
    note = f"{format_size(size)}, {row.metrics['times_peak']:.2f} × peak"
    if row.timeline is None:
        return Bar(name, (("in a model", size, _REFERENCE),), note)
    t = row.timeline
    at = fullest(t)
    parts = [(what, getattr(t, column)[at], paint) for what, column, paint in _PARTS]
    return Bar(name, (("metadata", size - t.managed, _METADATA), *parts), note)
