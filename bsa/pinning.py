"""What stands in the way of a free block of some order.

A free block of 2^k pages is the aligned window of 2^k pages that it fills, or contains one. So the
fewest allocations whose freeing gives such a block are the fewest that touch one window: of page
blocks, one each; of slabs, every live object. One pass over what is live finds them exactly.
"""

import operator
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from bsa._core import MAX_ORDER, InvalidParamError
from bsa.births import Birth
from bsa.space import free_after_trim, free_spaces
from bsa.units import counted, format_size


class Pin(NamedTuple):
    """An allocation that stands in the way."""

    address: int
    size: int  #: bytes, as granted
    kind: str  #: object, pages, block or parked
    birth: Birth | None  #: the event that made it, where that is known


@dataclass(frozen=True)
class Pins:
    """The fewest allocations whose freeing, and then trim(), gives a free block of the order."""

    order: int
    page_size: int
    section: int  #: index of the section
    start: int  #: offset of the window from the first byte of the section's region
    pins: tuple[Pin, ...]  #: by address; none: such a block is free, or trim() would free it

    @property
    def size(self):
        """Bytes in the way, as granted."""
        return sum(pin.size for pin in self.pins)

    def __len__(self):
        return len(self.pins)

    def __iter__(self):
        return iter(self.pins)

    def __getitem__(self, index):
        """The pin at an index, or a tuple of those of a slice."""
        return self.pins[index]

    def __repr__(self):
        found = f"{counted(len(self), 'allocation')} of {counted(self.size, 'byte')}"
        return (
            f"<bsa.Pins of order {self.order} ({format_size(self.page_size << self.order)}): "
            f"{found if self.pins else 'none, already free or so by trim()'}, "
            f"section {self.section} at {self.start:#x}>"
        )

    def _repr_html_(self):
        from bsa.html import pins_html  # pictures are needed only where they are shown

        return pins_html(self)


def pins(allocator, order, *, births=None):
    """The fewest live allocations whose freeing would give a free block of 2^order pages.

    Of equally many, those of the fewest bytes; then those at the lowest address. Slabs they leave
    empty count as free pages, which trim() or the next need makes them. `births`: what
    replay_births() returned, to name the events that made them. A Pins is returned.

    InvalidParamError: the order is no order, or no section has room for such a block at all.
    """
    order = operator.index(order)
    if not 0 <= order <= MAX_ORDER:
        raise InvalidParamError(f"order {order} is not in 0 to {MAX_ORDER}")
    candidates = [space for space in free_spaces(allocator) if _windows(space, order)]
    if not candidates:
        raise InvalidParamError(f"no section has room for a block of order {order}")
    window = _free_window(candidates, order)
    if window is None:
        window = _cheapest_window(allocator, candidates, order)
    start = (window << order) * allocator.page_size
    space = next(space for space in candidates if window in _windows(space, order))
    found = _pins_in(allocator, space, start, start + (allocator.page_size << order), births or {})
    return Pins(order, allocator.page_size, space.section, start - space.base, tuple(sorted(found)))


def _windows(space, order):
    """The windows that lie in the heap: window w has the pages from w << order on."""
    return range(-(-space.first_page >> order), space.end_page >> order)


def _free_window(candidates, order):
    """The lowest window that is free once idle slabs are given back; None: none is."""
    free = (
        page >> order
        for space in candidates
        for pages in free_after_trim(space)[order:]
        for page in pages
    )
    return min(free, default=None)


def _cheapest_window(allocator, candidates, order):
    """The window that the fewest allocations touch; of equals that of the fewest bytes, the lowest."""
    counts, sizes = _costs(allocator, candidates, order)
    rooms = (_windows(space, order) for space in candidates)
    return min(
        (counts[window], sizes[window], window)
        for room in rooms
        for window in counts
        if window in room
    )[-1]


def _costs(allocator, candidates, order):
    """{window: allocations} and {window: bytes}: what keeps each of the windows in use. Of those that
    one block fills, which all cost the same, some will do: so a block of a million pages costs no
    more time than a small one."""
    shift = allocator.page_size.bit_length() - 1 + order
    counts = defaultdict(int)
    sizes = defaultdict(int)
    for address, size, allocations, granted in _in_use(allocator, candidates):
        low, high = address >> shift, address + size - 1 >> shift
        for window in (low,) if low == high else {low, low + 1, high}:
            counts[window] += allocations
            sizes[window] += granted
    return counts, sizes


def _in_use(allocator, candidates):
    """(address, size, number of allocations, their bytes) of each page block, and of each slab that
    is not idle."""
    for space in candidates:
        for extent in space.extents:
            if extent.kind == "slab" and not extent.is_idle:
                size = extent.live * extent.slab.size
                yield extent.slab.base, extent.size, extent.live, size
    page_size = allocator.page_size
    for address, size, _ in allocator.walk():
        if size >= page_size:  # objects are smaller
            yield address, size, 1, size


def _pins_in(allocator, space, start, end, births):
    """What lies, at least in part, between two addresses of the section: of a slab all objects."""
    objects = set()
    for extent in space.extents:
        if extent.kind == "slab" and extent.slab.base < end and space.base + extent.end > start:
            objects.update(extent.slab.objects())
    page_size = allocator.page_size
    for address, size, kind in allocator.walk():
        if address in objects or (size >= page_size and address < end and address + size > start):
            yield Pin(address, size, kind, births.get(address))
