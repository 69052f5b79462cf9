"""A heap as extents: what lies where, from the first byte of each region to the last.

All that looks at a heap piece by piece is gathered here, once, through the allocator's public methods;
meanwhile no other thread may change the heap. The extents of a section are in the order of their
offsets and leave nothing out. For heaps of a great many pieces there is bsa.mosaic.
"""

from operator import itemgetter
from typing import NamedTuple

from bsa._core import MAX_ORDER


class Extent(NamedTuple):
    """A piece of a region. `start` counts from the region's first byte."""

    start: int
    size: int  #: bytes
    kind: str  #: metadata, free, pages, block, parked or slab
    order: int = 0  #: of what is free: 2^order pages
    slab: object = None  #: of a slab: its bsa.Slab

    @property
    def end(self):
        return self.start + self.size

    @property
    def live(self):
        """Of a slab: the number of its live objects."""
        slab = self.slab
        return slab.capacity - slab.free_count - slab.remote_free_count

    @property
    def is_idle(self):
        """A slab that trim(), or an allocation that finds nothing else, gives back."""
        return self.kind == "slab" and self.live == 0


class Space(NamedTuple):
    """One section."""

    section: int  #: its index
    base: int  #: address of the region's first byte
    heap: int  #: offset of the heap
    size: int  #: bytes, from the region's first byte to the heap's last
    page_size: int
    extents: tuple  #: of Extent
    owned: dict  #: of the objects in slabs that are no raw ones: {address: block or parked}

    @property
    def first_page(self):
        """The number of the heap's first page. Blocks of 2^k pages begin at multiples of 2^k."""
        return (self.base + self.heap) // self.page_size

    @property
    def end_page(self):
        return (self.base + self.size) // self.page_size

    def page_of(self, extent):
        return (self.base + extent.start) // self.page_size

    @property
    def top_order(self):
        """The largest order that fits into as many pages."""
        return min((self.end_page - self.first_page).bit_length() - 1, MAX_ORDER)


def spaces(allocator, start=0, end=1 << 64):
    """A Space for each section. Of page blocks those alone that touch addresses from `start` to `end`."""
    page_size, blocks, owned = allocator.page_size, [], {}
    for item in allocator.walk():
        address, size, kind = item
        if size >= page_size:  # objects are smaller
            if address < end and address + size > start:
                blocks.append(item)
        elif kind != "object":
            owned[address] = kind
    return _spaces(allocator, blocks, owned)


def free_spaces(allocator):
    """The same of slabs and free blocks alone."""
    return _spaces(allocator, [], {})


def _spaces(allocator, blocks, owned):
    sections = allocator.sections
    by_section = _by_section(sections, blocks, itemgetter(0))
    slabs = _by_section(sections, allocator.slabs(), lambda slab: slab.base)
    return [_space(allocator, *mine, owned) for mine in zip(sections, by_section, slabs)]


def _by_section(sections, items, address_of):
    """The items of each section."""
    lists = [[] for _ in sections]
    bounds = [(section.start, section.start + section.size) for section in sections]
    current = 0  # neighbours mostly lie in one section
    for item in items:
        address = address_of(item)
        if not bounds[current][0] <= address < bounds[current][1]:
            current = next(i for i, (start, end) in enumerate(bounds) if start <= address < end)
        lists[current].append(item)
    return lists


def _space(allocator, section, blocks, slabs, owned):
    base, page_size = section.region_start, allocator.page_size
    heap, size = section.start - base, section.start - base + section.size
    extents = [Extent(0, heap, "metadata"), *_free(section, base, page_size)]
    extents += [Extent(address - base, size, kind) for address, size, kind in blocks]
    extents += [Extent(slab.base - base, slab.nbytes, "slab", 0, slab) for slab in slabs]
    extents.sort(key=itemgetter(0))
    return Space(section.index, base, heap, size, page_size, tuple(extents), owned)


def _free(section, base, page_size):
    for order in range(MAX_ORDER + 1):
        for address in section.free_list(order):
            yield Extent(address - base, page_size << order, "free", order)


def free_after_trim(space):
    """Per order the set of the first pages of the blocks that are free once idle slabs are given
    back, merged as buddies are."""
    free = [set() for _ in range(MAX_ORDER + 1)]
    for extent in space.extents:
        if extent.kind == "free" or extent.is_idle:
            order = (extent.size // space.page_size).bit_length() - 1
            free[order].add(space.page_of(extent))
    for order in range(MAX_ORDER):
        pairs = {page for page in free[order] if not page >> order & 1}
        pairs = {page for page in pairs if page ^ 1 << order in free[order]}
        free[order + 1] |= pairs
        free[order] -= pairs | {page ^ 1 << order for page in pairs}
    return free
