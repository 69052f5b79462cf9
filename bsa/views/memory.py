"""The stacked timeline: what was asked for, what is lost on top of it, and what is free."""

from bisect import bisect_left
from dataclasses import dataclass

from bsa.svg import Drawing
from bsa.timeline import Timeline
from bsa.timeline import fullest
from bsa.units import format_size, percent
from bsa.views import colours, frame, strips, view
from bsa.views.view import View

_HEIGHT = 260
_ZONES = 80  # along the events, each with a text for the pointer
_STEPS = 300  # along the events; each shows its lowest and highest sample

_OTHERS = "others' blocks"
_BANDS = (
    ("requested", colours.REQUESTED),
    ("lost by rounding", colours.LOSS),
    ("unused in slabs", colours.HELD),
    (_OTHERS, colours.PAGES),
    ("free", colours.FREE),
)


def memory_timeline(timeline):
    """Bytes over events, stacked: requested, lost by rounding, unused in slabs, free; and what lives in
    the heap beside the trace's blocks, where there is any."""
    view.check("memory_timeline", timeline, Timeline)
    return MemoryTimeline(timeline)


@dataclass(frozen=True, repr=False)
class MemoryTimeline(View):
    """The data: a timeline."""

    timeline: Timeline

    def bands(self):
        """(events, five tuples of bytes): the heights of the bands, from the bottom up."""
        t = self.timeline
        chosen = frame.telling_samples(t.allocated, _STEPS)
        return [t.event[i] for i in chosen], tuple(zip(*(_heights(t, i) for i in chosen)))

    def _legend(self):
        """The bands that there are."""
        _, bands = self.bands()
        return [name for name, heights in zip(_BANDS, bands) if any(heights)]

    @property
    def top(self):
        """Of the axis. Where most of the heap is never used, not all of it is drawn."""
        return min(self.timeline.managed, int(1.6 * max(1, max(self.timeline.allocated))))

    def picture(self):
        drawing = Drawing()
        y = frame.draw_heading(drawing, frame.TOP, "Memory", self._note(), self._legend())
        across = frame.Axis(frame.LEFT, frame.RIGHT, 0, self.timeline.events)
        up = frame.Axis(y + _HEIGHT, y, 0, self.top)
        self._draw_bands(drawing, across, up)
        zone = (frame.RIGHT - frame.LEFT) / _ZONES, _HEIGHT
        for index, text in enumerate(self._zone_texts()):
            strips.draw_zones(drawing, frame.LEFT + index * zone[0], y, *zone, 1, [text])
        frame.draw_levels(drawing, up, frame.byte_ticks(self.top), format_size)
        ticks = frame.event_ticks(self.timeline.events)
        frame.draw_marks(drawing, y + _HEIGHT, across, ticks, frame.events_label, "events")
        height = y + _HEIGHT + 44
        return drawing.finished(frame.WIDTH, height, "Memory over time", self._description())

    def _note(self):
        hidden = self.timeline.managed - self.top
        more = f"; {format_size(hidden)} more are free above" if hidden > 0 else ""
        return f"Bytes, stacked. The heap has {format_size(self.timeline.managed)}{more}."

    def _draw_bands(self, drawing, across, up):
        events, bands = self.bands()
        top, floor = self.top, [0] * len(events)
        for (_, paint), heights in zip(_BANDS, bands):
            ceiling = [min(low + height, top) for low, height in zip(floor, heights)]
            if not any(heights):
                continue
            upper = [(across(event), up(value)) for event, value in zip(events, ceiling)]
            lower = [(across(event), up(value)) for event, value in zip(events, floor)]
            drawing.polygon([*upper, *reversed(lower)], paint)
            floor = ceiling

    def _zone_texts(self):
        """What a pointer is told along the events: the sample nearest to the middle of each zone."""
        t = self.timeline
        for zone in range(_ZONES):
            middle = t.events * (2 * zone + 1) // (2 * _ZONES)
            after = bisect_left(t.event, middle, hi=len(t) - 1)
            near = min(max(after - 1, 0), after, key=lambda at: abs(t.event[at] - middle))
            yield self._told(near)

    def _told(self, at):
        """A sample in words."""
        t = self.timeline
        parts = [
            f"{format_size(size)} {name} ({percent(size, t.managed)})"
            for (name, _), size in zip(_BANDS, _heights(t, at))
            if size or name != _OTHERS
        ]
        return f"event {t.event[at]:,}: {', '.join(parts)}"

    def _description(self):
        t = self.timeline
        at = fullest(t)
        return f"Where most is held, at {self._told(at)}"

    def _plot(self, ax):
        from bsa.views import figure

        events, bands = self.bands()
        mebibytes = [[value / 2**20 for value in band] for band in bands]
        paints = [figure.rgba(paint) for _, paint in _BANDS]
        ax.stackplot(events, *mebibytes, colors=paints)
        ax.set_xlim(0, max(self.timeline.events, 1))
        ax.set_ylim(0, max(self.top, 1) / 2**20)
        ax.set_xlabel("events")
        ax.set_ylabel("memory (MiB)")
        figure.plot_legend(ax, self._legend())
        ax.set_title("Memory over time")


def _heights(t, at):
    """Of the bands, at a sample."""
    granted, held = t.granted[at], t.allocated[at]
    others = held - granted - t.slab_slack[at]
    return t.requested[at], granted - t.requested[at], t.slab_slack[at], others, t.managed - held
