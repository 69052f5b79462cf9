"""What stands in the way of a free block of some order.

A free block of 2^k pages is the aligned window of 2^k pages that it fills, or contains one. So the
fewest allocations whose freeing gives such a block are the fewest that touch one window: of page
blocks, one each; of slabs, every live object. One pass over what is live finds them exactly.
"""

import operator
from dataclasses import dataclass
from typing import NamedTuple

from bsa._core import MAX_ORDER, InvalidParamError
from bsa.births import Birth
from bsa.units import counted, format_size
from bsa.space import Space, free_after_trim, spaces


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
    windows = [window for space in spaces(allocator) for window in _cheapest(space, order)]
    if not windows:
        raise InvalidParamError(f"no section has room for a block of order {order}")
    best = min(windows, key=lambda window: (window.cost, window.space.base))
    return Pins(
        order,
        allocator.page_size,
        best.space.section,
        (best.page << order) * allocator.page_size - best.space.base,
        tuple(_pins_in(best, order, births or {})),
    )


class _Window(NamedTuple):
    """Pages page << order up to (page + 1) << order."""

    cost: tuple  #: (allocations, bytes)
    space: Space
    page: int


def _cheapest(space, order):
    """The cheapest window of a section; none if it has no room for one."""
    first, end = -(-space.first_page >> order), space.end_page >> order
    if first >= end:
        return
    free = [page for pages in free_after_trim(space)[order:] for page in pages]
    if free:
        yield _Window((0, 0), space, min(free) >> order)
        return
    costs = {}
    for extent in space.extents:
        count, size = _cost(extent)
        for window in _windows(space, extent, order, first, end) if count else ():
            before = costs.get(window, (0, 0))
            costs[window] = before[0] + count, before[1] + size
    page = min(costs, key=lambda window: (costs[window], window))
    yield _Window(costs[page], space, page)


def _cost(extent):
    """(allocations, bytes) that keep the extent in use."""
    if extent.kind == "slab":
        return extent.live, extent.live * extent.slab.size
    return (0, 0) if extent.kind in ("free", "metadata") else (1, extent.size)


def _windows(space, extent, order, first, end):
    """The windows that an extent touches. Of those it fills, which all cost the same, one will do:
    so a block of a million pages costs no more time than a small one."""
    start = space.page_of(extent)
    low = max(start >> order, first)
    high = min(start + extent.size // space.page_size - 1 >> order, end - 1)
    return sorted({low, low + 1, high}) if high > low else range(low, high + 1)


def _pins_in(window, order, births):
    space, page_size = window.space, window.space.page_size
    start = (window.page << order) * page_size - space.base
    for extent in space.extents:
        if extent.end <= start or extent.start >= start + (page_size << order):
            continue
        if extent.kind == "slab":
            for address in extent.slab.objects():
                kind = space.owned.get(address, "object")
                yield Pin(address, extent.slab.size, kind, births.get(address))
        elif extent.kind not in ("free", "metadata"):
            address = space.base + extent.start
            yield Pin(address, extent.size, extent.kind, births.get(address))
