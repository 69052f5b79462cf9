"""Slab occupancy: for each size class its slabs, fullest first, each filled as far as it is used."""

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from bsa._core import Allocator
from bsa.svg import FAINT_INK, Drawing
from bsa.units import counted, format_size, percent
from bsa.views import colours, frame, strips, view
from bsa.views.view import View

_ROW = 18
_STRIP = 700  # width of the slabs
_WIDEST = 350  # of a slab
_MOST_SLABS, _MOST_OBJECTS = 400, 15_000  # drawn at their places
_STEPS = 60  # of a row, where they are more
_TEXT = 11
_BAR, _MOST_LABELS = 0.8, 16  # by matplotlib

_LEGEND = (
    ("live", colours.OBJECT),
    ("freed by other slots, not yet taken back", colours.EMPTY_SLAB),
    ("free", colours.FREE),
)


class _Slab(NamedTuple):
    """What is shown of a bsa.Slab, which holds its allocator and cannot be pickled."""

    base: int
    size: int
    nbytes: int
    capacity: int
    free_count: int
    remote_free_count: int
    cpu: int
    state: str
    bitmap: bytes


def slab_strips(allocator):
    """The slabs of every class that has any."""
    view.check("slab_strips", allocator, Allocator)
    classes = defaultdict(list)
    for slab in allocator.slabs():
        classes[slab.size].append(_Slab(*(getattr(slab, name) for name in _Slab._fields)))
    return SlabStrips(
        tuple((size, tuple(sorted(classes[size], key=_fullness))) for size in sorted(classes))
    )


@dataclass(frozen=True, repr=False)
class SlabStrips(View):
    """The data: (object size, its slabs, the fullest first) for each class."""

    classes: tuple

    def picture(self):
        drawing = Drawing()
        legend = [_LEGEND[0], _LEGEND[-1]] if self._shows_objects else _LEGEND
        live = (
            "its live objects at their places" if self._shows_objects else "filled as far as used"
        )
        note = f"A bar is a slab, {live}; the fullest stand first."
        y = frame.draw_heading(drawing, frame.TOP, "Slabs of each class", note, legend)
        for size, slabs in self.classes:
            self._draw(drawing, y, size, slabs)
            y += _ROW
        return drawing.finished(frame.WIDTH, y + 8, "Slab occupancy", self._description())

    def _draw(self, drawing, y, size, slabs):
        label = f"{size:,} B"
        drawing.text(frame.LEFT - 8, y + 11, label, size=_TEXT, fill=FAINT_INK, anchor="end")
        if self._shows_slabs:
            self._draw_slabs(drawing, y, slabs)
        else:
            self._draw_outline(drawing, y, slabs)
        drawing.text(frame.LEFT + _STRIP + 10, y + 11, _summary(slabs), size=_TEXT, fill=FAINT_INK)

    def _draw_slabs(self, drawing, y, slabs):
        width, height = self._width, _ROW - 4
        gap = 1 if width > 4 else 0
        draw = _draw_objects if self._shows_objects else _draw_level
        for index, slab in enumerate(slabs):
            x = frame.LEFT + index * width
            drawing.rect(x, y, width - gap, height, colours.FREE)
            draw(drawing, x, y, width - gap, height, slab)
        strips.draw_zones(drawing, frame.LEFT, y, width * len(slabs), height, 1, map(_text, slabs))

    @property
    def _shows_slabs(self):
        """Whether there is room for all slabs."""
        return sum(len(slabs) for _, slabs in self.classes) <= _MOST_SLABS

    @property
    def _shows_objects(self):
        """Whether there is room for all objects, at their places."""
        room = sum(slab.capacity for _, slabs in self.classes for slab in slabs)
        return self._shows_slabs and room <= _MOST_OBJECTS and self._width >= 30

    def _draw_outline(self, drawing, y, slabs):
        """Many slabs: the levels of a few hundred of them."""
        width, height = self._width * len(slabs), _ROW - 4
        drawing.rect(frame.LEFT, y, width, height, colours.FREE)
        levels = [slabs[step * len(slabs) // _STEPS] for step in range(_STEPS)]
        both = [sum(_shares(slab)) for slab in levels]
        live = [_shares(slab)[0] for slab in levels]
        for shares, paint in ((both, colours.EMPTY_SLAB), (live, colours.OBJECT)):
            drawing.polygon(_outline(frame.LEFT, y, width, height, shares), paint)
        texts = _zone_texts(slabs, max(strips.zones_for(len(self.classes)), 1))
        strips.draw_zones(drawing, frame.LEFT, y, width, height, 1, texts)

    @property
    def _width(self):
        """Of a slab, the same in all rows."""
        most = max((len(slabs) for _, slabs in self.classes), default=1)
        return min(_STRIP / most, _WIDEST)

    def _description(self):
        return "; ".join(f"{size} bytes: {_summary(slabs)}" for size, slabs in self.classes)

    def _plot(self, ax):
        from bsa.views import figure

        classes = self.classes[::-1]  # the smallest on top, as in the SVG
        for row, (_, slabs) in enumerate(classes):
            edges, shares = range(len(slabs) + 1), list(map(_shares, slabs))
            levels = ([1] * len(slabs), map(sum, shares), [live for live, _ in shares])
            for level, (_, paint) in zip(levels, reversed(_LEGEND)):
                tops = [row + _BAR * share for share in level]
                ax.stairs(tops, edges, baseline=row, fill=True, color=figure.rgba(paint))
        figure.plot_legend(ax, _LEGEND)
        every = -(-len(classes) // _MOST_LABELS)
        labelled = range(0, len(classes), max(every, 1))
        ax.set_yticks([row + _BAR / 2 for row in labelled], [classes[row][0] for row in labelled])
        ax.set_ylim(0, max(len(classes), 1))
        ax.set_ylabel("object size (bytes)")
        ax.set_xlabel("slabs, fullest first")
        ax.set_title("Slab occupancy")


def _draw_objects(drawing, x, y, width, height, slab):
    """The live objects; those that other slots have freed are among the free ones."""
    bits = int.from_bytes(slab.bitmap, "little")
    cells = [None if bits >> index & 1 else colours.OBJECT for index in range(slab.capacity)]
    for paint, path in strips.strokes(cells, slab.capacity).items():
        drawing.cells(x, y, width / slab.capacity, height, path, paint)


def _draw_level(drawing, x, y, width, height, slab):
    live, remote = (height * share for share in _shares(slab))
    if live:
        drawing.rect(x, y + height - live, width, live, colours.OBJECT)
    if remote:
        drawing.rect(x, y + height - live - remote, width, remote, colours.EMPTY_SLAB)


def _outline(x, y, width, height, shares):
    """The corners of bars of these heights, side by side."""
    axis = frame.Axis(x, x + width, 0, len(shares))
    corners = [(x + width, y + height), (x, y + height)]
    for bar, share in enumerate(shares):
        level = y + height * (1 - share)
        corners += [(axis(bar), level), (axis(bar + 1), level)]
    return corners


def _zone_texts(slabs, count):
    """Of so many equal parts of the slabs: which they are, and how much of them is used."""
    count = min(count, len(slabs))
    bounds = [part * len(slabs) // count for part in range(count + 1)]
    return [
        f"slabs {first + 1:,} to {end:,} of {len(slabs):,}: {_summary(slabs[first:end])}"
        for first, end in zip(bounds, bounds[1:])
    ]


def _shares(slab):
    """(live, freed by other slots) as shares of the slab's objects."""
    live = slab.capacity - slab.free_count - slab.remote_free_count
    return live / slab.capacity, slab.remote_free_count / slab.capacity


def _fullness(slab):
    return -sum(_shares(slab)), slab.base


def _text(slab):
    live = slab.capacity - slab.free_count - slab.remote_free_count
    remote = f", {slab.remote_free_count} freed by other slots" if slab.remote_free_count else ""
    return (
        f"{slab.base:#x}: {live} of {slab.capacity} objects of {slab.size} bytes live{remote}; "
        f"slot {slab.cpu}, {slab.state}, {format_size(slab.nbytes)}"
    )


def _summary(slabs):
    live = sum(slab.capacity - slab.free_count - slab.remote_free_count for slab in slabs)
    room = sum(slab.capacity for slab in slabs)
    unused = sum(slab.nbytes for slab in slabs) - live * slabs[0].size
    return (
        f"{counted(len(slabs), 'slab')}, {percent(live, room)} used, {format_size(unused)} unused"
    )
