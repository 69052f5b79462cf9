"""A stretch of a heap in equal cells: what lies in each of them.

A heap may have millions of pieces; a picture has room for a few thousand. The sums are made in C, in
one walk, so they take milliseconds where looking at the pieces one by one (bsa.space) takes seconds.
"""

from typing import NamedTuple

from bsa import _core
from bsa.units import counted


class Column(NamedTuple):
    """One kind of pieces, cell by cell."""

    kind: str  #: pages, slab, idle (an empty slab), object, free, or stuck: free, its buddy in use
    order: int  #: 2^order pages each; of objects 0
    sizes: memoryview  #: bytes of such pieces that lie in the cell
    pieces: memoryview  #: how many do so, at least in part


class Mosaic(NamedTuple):
    """Cells of a section, in the order of their offsets from the region's first byte."""

    start: int  #: offset of the first cell
    cell: int  #: bytes
    columns: tuple[Column, ...]

    def offset(self, cell):
        return self.start + cell * self.cell

    def sums(self, cell=0):
        """{kind: (bytes, pieces)} of one cell, of all orders."""
        sums = {}
        for kind, _, sizes, pieces in self.columns:
            if pieces[cell]:
                size, count = sums.get(kind, (0, 0))
                sums[kind] = size + sizes[cell], count + pieces[cell]
        return sums


def mosaic(allocator, section, start, cell, count):
    """`count` cells of `cell` bytes of a Section, from an offset on; what lies outside is nothing."""
    found = _core._cells(allocator, section.index, section.region_start + start, cell, count)
    columns = []
    for (kind, order), column in found.items():
        numbers = memoryview(column).cast("Q")
        columns.append(Column(kind, order, numbers[:count], numbers[count:]))
    return Mosaic(start, cell, tuple(columns))


_FREE = ("free", "stuck")
_NAMES = (
    ("page block", ("pages",)),
    ("slab", ("slab",)),
    ("empty slab", ("idle",)),
    ("object", ("object",)),
    ("free block", _FREE),
)


def free_size(sums):
    """Bytes in free blocks, of Mosaic.sums()."""
    return sum(sums[kind][0] for kind in _FREE if kind in sums)


def pieces_in_words(sums):
    """Mosaic.sums() in words, with the number of pieces of each kind."""
    counts = {name: sum(sums[kind][1] for kind in kinds if kind in sums) for name, kinds in _NAMES}
    return ", ".join(counted(count, name) for name, count in counts.items() if count)
