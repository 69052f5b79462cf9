"""The heap map: every byte of the regions at its true place, coloured by what it is used for."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from bsa._core import Allocator
from bsa.mosaic import free_size, mosaic
from bsa.space import spaces
from bsa.svg import FAINT_INK, Drawing
from bsa.units import counted, format_size, percent
from bsa.views import colours, frame, pieces, strips, tiles, view
from bsa.views.strips import Span, Tiles
from bsa.views.view import View

_ROW = 13
_SECTIONS = 8  # at most are drawn
_MOST_LABELS = 16  # by matplotlib


def heap_map(allocator, *, objects=False, births=None):
    """A map of the heap: by pages, or with `objects` down to the objects in slabs.

    `births`, what replay_births() returned, tells what was asked for: then what rounding loses has
    a colour of its own, and the pointer shows the events. Up to eight sections are drawn; one of more
    than a few hundred pieces in equal cells, of which the pointer shows what a zone of them merges.
    """
    view.check("heap_map", allocator, Allocator)
    gathered = _Gathering(allocator, objects, births or {})
    sections = allocator.sections
    maps = tuple(map(gathered.map_of, sections[:_SECTIONS]))
    return HeapMap(maps, len(sections) - len(maps), objects, bool(births))


class SectionMap(NamedTuple):
    """One section in rows."""

    section: int  #: its index
    base: int  #: address of the region's first byte
    size: int  #: bytes, from there to the heap's last
    row_bytes: int
    content: tuple[list[Span], ...] | Tiles  #: lists of Spans in bytes, one a row; or cells
    words: str  #: what the section is used for

    @property
    def rows(self):
        """Lists of Spans, one a row."""
        return self.content.rows if isinstance(self.content, Tiles) else self.content

    @property
    def caption(self):
        return (
            f"Section {self.section}: {format_size(self.size)} at {self.base:#x}, "
            f"{format_size(self.row_bytes)} a row"
        )


@dataclass(frozen=True, repr=False)
class HeapMap(View):
    """The data: the maps of the sections drawn, and the number of others."""

    maps: tuple[SectionMap, ...]
    others: int
    objects: bool
    has_births: bool

    def picture(self):
        drawing = Drawing()
        note = (
            "Lowest address first; offsets are from the first byte of the region. Free blocks are the "
            "stronger, the larger."
        )
        y = frame.draw_heading(drawing, frame.TOP, "Heap map", note, self._legend())
        for section_map in self.maps:
            y = _draw(drawing, y, section_map)
        if self.others:
            more = counted(self.others, "more section")
            drawing.text(frame.LEFT, y + 4, more, fill=FAINT_INK)
            y += 16
        words = "; ".join(section_map.words for section_map in self.maps)
        return drawing.finished(frame.WIDTH, y, "Heap map", words or "no section")

    def _legend(self):
        rows = [spans for section_map in self.maps for spans in section_map.rows]
        return strips.occurring(self._kinds(), rows)

    def _kinds(self):
        """What there may be."""
        legend = [("metadata", colours.METADATA), ("page blocks", colours.PAGES)]
        if self.objects:
            legend += [("objects", colours.OBJECT), ("unused in slabs", colours.SLACK)]
        else:
            legend.append(("slabs", colours.SLAB))
        legend.append(("empty slabs", colours.EMPTY_SLAB))
        if self.has_births:
            legend.append(("lost by rounding", colours.LOSS))
        return [*legend, ("free", colours.FREE)]

    def _plot(self, ax):
        """The sections below each other, to the same scale, with a gap between two."""
        from bsa.views import figure

        row_bytes = max((section_map.row_bytes for section_map in self.maps), default=1)
        rows, labels = [], {}
        for section_map in self.maps:
            if rows:
                rows.append([])
            wide = _widened(section_map, row_bytes)
            labels.update(self._row_labels(section_map, len(rows), len(wide), row_bytes))
            rows += wide
        figure.plot_rows(ax, rows)
        figure.plot_legend(ax, self._legend())
        ax.set_xlim(0, row_bytes)
        ax.set_yticks([row + 0.45 for row in labels], list(labels.values()))
        figure.label_bytes(ax.xaxis, frame.byte_ticks(row_bytes, 4))
        ax.set_xlabel(f"offset in a row of {format_size(row_bytes)}")
        ax.set_ylabel("offset from the region's first byte")
        ax.set_title("Heap map")

    def _row_labels(self, section_map, first, count, row_bytes):
        """{row: label} of some rows, the first one among them."""
        every = max(-(-count * len(self.maps) // _MOST_LABELS), 1)
        labels = {
            first + row: frame.offset_label(row * row_bytes) for row in range(0, count, every)
        }
        if len(self.maps) > 1:
            labels[first] = f"section {section_map.section}: {labels[first]}"
        return labels


def _widened(section_map, row_bytes):
    """The rows of a section joined to longer ones; both lengths are powers of two."""
    ratio = row_bytes // section_map.row_bytes
    rows = [[] for _ in range(-(-len(section_map.rows) // ratio))]
    for index, spans in enumerate(section_map.rows):
        row, part = divmod(index, ratio)
        shift = part * section_map.row_bytes
        for span in spans:
            rows[row].append(span._replace(start=span.start + shift, end=span.end + shift))
    return rows


def _draw(drawing, y, section_map):
    """Draws a section; returns where what follows begins."""
    drawing.text(frame.LEFT, y + 10, section_map.caption, fill=FAINT_INK)
    place = strips.Rows(frame.LEFT, y + 18, frame.INNER, _ROW, section_map.row_bytes)
    count = -(-section_map.size // section_map.row_bytes)
    for row in range(0, count, 2):
        label = frame.offset_label(row * section_map.row_bytes)
        at = place.y + row * _ROW + 10
        drawing.text(frame.LEFT - 8, at, label, size=11, fill=FAINT_INK, anchor="end")
    strips.draw(drawing, place, section_map.content)
    return place.y + count * _ROW + 16


# ---- What is there ----


class _Gathering:
    """Makes the maps of an allocator's sections."""

    def __init__(self, allocator, objects, births):
        self._allocator, self._objects, self._births = allocator, objects, births
        self._parts = min(len(allocator.sections), _SECTIONS)
        self._most = strips.MOST_SPANS // max(self._parts, 1)

    def map_of(self, section):
        size = section.start - section.region_start + section.size
        row_bytes = self._row_bytes(size)
        sums = mosaic(self._allocator, section, 0, size, 1).sums()
        content = self._exact(section, sums, row_bytes, size) or tiles.heap_tiles(
            self._allocator,
            section,
            0,
            size,
            row_bytes,
            objects=self._objects,
            births=self._births,
            parts=self._parts,
        )
        base, words = section.region_start, _shares(section, size, sums)
        return SectionMap(section.index, base, size, row_bytes, content, words)

    def _row_bytes(self, size):
        """A power of two, so that blocks begin at the same place in each row."""
        most, row_bytes = 48 if self._objects else 24, self._allocator.page_size
        while -(-size // row_bytes) > most:
            row_bytes *= 2
        return row_bytes

    def _exact(self, section, sums, row_bytes, size):
        """Rows of spans, one for each piece; None if they are too many."""
        count = sum(
            pieces for kind, (_, pieces) in sums.items() if self._objects or kind != "object"
        )
        if count > self._most:
            return None
        space = self._spaces[section.index]
        spans = list(pieces.spans(space, self._objects, self._births))
        return tuple(_in_rows(spans, row_bytes, size)) if len(spans) <= self._most else None

    @cached_property
    def _spaces(self):
        return spaces(self._allocator)


def _shares(section, size, sums):
    """What a section is used for, in words. An object lies in its slab."""
    sizes = {
        "metadata": size - section.size,
        **{name: sums[kind][0] for kind, name in _NAMES.items() if kind in sums},
        "free": free_size(sums),
    }
    parts = ", ".join(f"{percent(part, size)} {kind}" for kind, part in sizes.items() if part)
    return f"section {section.index} of {format_size(size)}: {parts}"


_NAMES = {"pages": "page blocks", "slab": "slabs", "idle": "empty slabs"}


def _in_rows(spans, row_bytes, size):
    """Spans cut at the ends of rows, and counted from the beginning of theirs."""
    rows = [[] for _ in range(-(-size // row_bytes))]
    for span in spans:
        row, start = divmod(span.start, row_bytes)
        left = span.end - span.start
        while left > 0:
            length = min(left, row_bytes - start)
            rows[row].append(span._replace(start=start, end=start + length))
            row, start, left = row + 1, 0, left - length
    return rows
