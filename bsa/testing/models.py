"""What an allocator must do, in a few lines of Python: slow, obvious, and exact.

BuddyModel predicts which pages the next request gets. Its policy: sections in order of
registration; the smallest order that fits is split, lower half first; last freed first within an
order; at the start the lowest block of an order comes first.

SlabModel puts the slabs on top of it and predicts which object the next request gets, from the
counts of each slab and the lists it is on. Both know nothing of bits, words and locks.

Pages are numbered from 0 within each section; `first` is the number of a section's first page in
the address space, which is what alignment and buddies are reckoned by.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

MAX_ORDER = 20


def order_of(pages: int) -> int:
    """The order of the smallest block of at least `pages` pages."""
    return (pages - 1).bit_length()


def floor_order(pages: int) -> int:
    return pages.bit_length() - 1


def alignment_of(number: int) -> int:
    """The largest order that `number` is a multiple of."""
    return (number & -number).bit_length() - 1 if number else MAX_ORDER


# --- pages


class SectionModel:
    """The buddy pages of one section."""

    def __init__(self, first: int, pages: int) -> None:
        self.first, self.pages = first, pages
        # Heads; the last is the next to be taken.
        self.free: list[list[int]] = [[] for _ in range(MAX_ORDER + 1)]
        self.live: dict[int, int] = {}  # head: pages
        end = pages
        while end > 0:
            order = min(alignment_of(first + end), floor_order(end), MAX_ORDER)
            end -= 1 << order
            self.free[order].append(end)

    @property
    def free_pages(self) -> int:
        return sum(len(heads) << order for order, heads in enumerate(self.free))

    def take(self, count: int, align_order: int = 0, exact: bool = False) -> int | None:
        """The head of a new block, or None if none fits."""
        order = order_of(count)
        found = self._find(order, align_order)
        if found is None:
            return None
        head, size = found
        self.free[size].remove(head)
        for half in reversed(range(order, size)):
            self.free[half].append(head + (1 << half))
        self.live[head] = 1 << order
        if exact:
            self.shrink(head, count)
        return head

    def _find(self, order: int, align_order: int) -> tuple[int, int] | None:
        for size in range(max(order, align_order), MAX_ORDER + 1):
            if self.free[size]:
                return self.free[size][-1], size
        for size in range(order, min(align_order, MAX_ORDER + 1)):
            for head in reversed(self.free[size]):
                if (self.first + head) % (1 << align_order) == 0:
                    return head, size
        return None

    def release(self, head: int) -> None:
        """Free the block: the tail beyond its largest power of two piece by piece, then that."""
        self.shrink(head, 1 << floor_order(self.live[head]))
        self._put(head, floor_order(self.live.pop(head)))

    def shrink(self, head: int, count: int) -> None:
        """Keep `count` pages, freeing from the top down."""
        while self.live[head] > count:
            have = self.live[head]
            order = min(floor_order(have - count), alignment_of(have))
            self.live[head] = have - (1 << order)
            self._put(head + have - (1 << order), order)

    def grow(self, head: int, count: int) -> bool:
        """Extend the block in place; False if what follows it is not free."""
        end = head + self.live[head]
        if alignment_of(self.first + head) < order_of(count) or head + count > self.pages:
            return False
        blocks = {at: order for order, heads in enumerate(self.free) for at in heads}
        absorbed = []
        while end < head + count:
            if end not in blocks:
                return False
            absorbed.append(end)
            end += 1 << blocks[end]
        for at in absorbed:
            self.free[blocks[at]].remove(at)
        self.live[head] = end - head
        self.shrink(head, count)
        return True

    def _put(self, head: int, order: int) -> None:
        while order < MAX_ORDER:
            buddy = (self.first + head ^ 1 << order) - self.first
            if buddy not in self.free[order]:
                break
            self.free[order].remove(buddy)
            head = min(head, buddy)
            order += 1
        self.free[order].append(head)


PageBlock: TypeAlias = tuple[SectionModel, int]  # where it is, and its head


class BuddyModel:
    """The pages of all sections."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.sections: list[SectionModel] = []

    def add(self, first: int, pages: int) -> SectionModel:
        self.sections.append(SectionModel(first, pages))
        return self.sections[-1]

    def pages_for(self, nbytes: int) -> int:
        return max(-(-nbytes // self.page_size), 1)

    def take(self, count: int, align: int = 0, exact: bool = False) -> PageBlock | None:
        """The block for a request of `count` pages aligned to `align` bytes, or None."""
        align_order = floor_order(max(align // self.page_size, 1))
        if order_of(count) > MAX_ORDER:
            return None
        for section in self.sections:
            head = section.take(count, align_order, exact)
            if head is not None:
                return section, head
        return None

    def resize_in_place(self, block: PageBlock, nbytes: int) -> bool:
        """Whether the block can stay where it is; if so, it has its new size.

        A power of two of pages stays one, an exact block exact.
        """
        section, head = block
        have, count = section.live[head], self.pages_for(nbytes)
        keep = 1 << order_of(count) if have & (have - 1) == 0 else count
        if keep > have:
            return section.grow(head, keep)
        section.shrink(head, keep)
        return True

    def resize(self, block: PageBlock, nbytes: int) -> PageBlock | None:
        """Where the block is after a resize to `nbytes`, too many for objects; None: it failed."""
        if self.resize_in_place(block, nbytes):
            return block
        new = self.take(self.pages_for(nbytes))
        if new is not None:
            block[0].release(block[1])
        return new

    def free_blocks(self) -> tuple[int, ...]:
        """The number of free blocks of each order."""
        return tuple(
            sum(len(section.free[order]) for section in self.sections)
            for order in range(MAX_ORDER + 1)
        )


# --- objects


def size_classes(page_size: int) -> tuple[int, ...]:
    """Bytes of objects: 8, multiples of 16 to 256, eight a doubling to half a page or 32 KiB."""
    sizes = [8, *range(16, 257, 16)]
    while sizes[-1] < 32768:
        start = sizes[-1]
        sizes += range(start + start // 8, 2 * start + 1, start // 8)
    return tuple(size for size in sizes if size <= page_size // 2)


def granted_size(page_size: int, size: int, align: int = 0) -> int:
    """Bytes that a request is served with: its class's, or a power of two of pages."""
    classes = size_classes(page_size)
    if max(size, align) > classes[-1]:
        return page_size << order_of(max(-(-size // page_size), 1))
    return min(c for c in classes if c >= size and c % (align or 1) == 0)


def least_alignment(page_size: int, size: int, align: int = 0) -> int:
    """What the address of such a request is a multiple of."""
    if max(size, align) > size_classes(page_size)[-1]:
        return max(align, page_size)
    return max(align, 16 if size >= 16 else 8)


def granule(page_size: int) -> int:
    """Bytes that a bit of a slab's bitmap stands for: objects start at multiples of it."""
    return page_size // min(max(page_size // 16, 64), 4096)


def slab_stride(page_size: int, size: int) -> int:
    """Bytes from one object of a slab to the next."""
    return -(-size // granule(page_size)) * granule(page_size)


def slab_capacity(page_size: int, size: int, order: int) -> int:
    """Objects in a slab of 2^order pages: as many as fit; no slab has more than 4096 granules."""
    if (page_size << order) > 4096 * granule(page_size):
        return 0
    return (page_size << order) // slab_stride(page_size, size)


def slab_order(page_size: int, size: int) -> int:
    """The smallest slab that wastes at most a sixteenth, of 2 to 8 pages.

    Of 4 pages where those waste at most a 24th, and 2 pages more. Not larger than it can make use
    of; and from pages of 128 KiB on, one page is enough.
    """
    stride = slab_stride(page_size, size)
    capacity = [slab_capacity(page_size, size, order) for order in range(4)]
    waste = [1 - capacity[order] * stride / (page_size << order) for order in range(4)]
    order = int(page_size < 128 << 10 and capacity[1] > capacity[0])
    if order == 1 and capacity[2] > capacity[1] and waste[2] <= 1 / 24 < waste[1]:
        return 2
    while order < 3 and capacity[order + 1] > capacity[order] and waste[order] > 1 / 16:
        order += 1
    return order


class Slab:
    """A block of pages cut into objects, of which some are free, and some freed by other slots."""

    def __init__(self, block: PageBlock, cpu: int, size: int, page_size: int) -> None:
        section, head = block
        self.block, self.cpu, self.size = block, cpu, size
        self.stride = slab_stride(page_size, size)
        self.group = 64 * granule(page_size)  # bytes of objects that are looked at together
        self.capacity = slab_capacity(page_size, size, floor_order(section.live[head]))
        self.free = set(range(self.capacity))
        self.pending: set[int] = set()  # freed remotely, not yet taken back

    @property
    def is_empty(self) -> bool:
        return len(self.free) == self.capacity

    def group_of(self, index: int) -> int:
        return index * self.stride // self.group


class Cache:
    """The slabs of one class and slot. A full slab is on no list."""

    REMEMBERED = 12  # objects at most

    def __init__(self) -> None:
        self.freed: list[tuple[Slab, int]] = []  # remembered; the last one is handed out first
        self.current: Slab | None = None  # then objects are taken from it
        self.group = 0  # of the current slab's objects: where some are looked for next
        self.row: list[int] = []  # those of one group that are to be taken next
        self.partial: list[Slab] = []  # first in, first out; some may have run out of free objects
        self.empty: Slab | None = None  # kept; a second one goes back
        self.remote: list[Slab] = []  # with pending frees; the last one is taken back first
        self.retired: list[Slab] = []  # to be given back, the last one first

    def take(self) -> tuple[Slab, int] | None:
        """A free object, or None: needs a slab."""
        if self.freed:
            slab, index = self.freed.pop()
            slab.free.remove(index)
            return slab, index
        if self.current is None or not self.current.free:
            self.drain()
        if self.current is None or not self.current.free:
            self._next_current()
        if self.current is None:
            return None
        if not self.row:
            self._next_row(self.current)
        index = self.row.pop(0)
        self.current.free.remove(index)
        return self.current, index

    def set_current(self, slab: Slab | None) -> None:
        self.current, self.group, self.row = slab, 0, []

    def _next_row(self, slab: Slab) -> None:
        """The free objects of the next group that has any; the first comes after the last."""
        groups = {slab.group_of(index) for index in slab.free}
        group = min(groups, key=lambda group: (group < self.group, group))
        self.row = sorted(index for index in slab.free if slab.group_of(index) == group)
        self.group = group + 1

    def _next_current(self) -> None:
        """Turn to the first partial slab with a free object, or else the empty one."""
        while self.partial:
            slab = self.partial.pop(0)
            if slab.free:
                self.set_current(slab)
                return
        self.set_current(self.empty)
        self.empty = None

    def put(self, slab: Slab, index: int) -> None:
        """Free an object, as the owner."""
        slab.free.add(index)
        if len(self.freed) < self.REMEMBERED:
            self.freed.append((slab, index))
        self._relist(slab)

    def put_remote(self, slab: Slab, index: int) -> None:
        """Free an object, as anybody else."""
        if not slab.pending:
            self.remote.append(slab)
        slab.pending.add(index)

    def drain(self) -> None:
        """Take back what others have freed."""
        while self.remote:
            slab = self.remote.pop()
            slab.free |= slab.pending
            slab.pending.clear()
            self._relist(slab)

    def trim(self) -> None:
        """Drain, and give up all that is empty."""
        self.drain()
        if self.empty is not None:
            self.retired.append(self.empty)
            self.empty = None
        if self.current is not None and self.current.is_empty:
            self.freed.clear()
            self.retired.append(self.current)
            self.set_current(None)

    def _relist(self, slab: Slab) -> None:
        """Put a slab in which objects have just become free where it belongs.

        When one becomes empty, and is not the one that stays current, all is forgotten.
        """
        if slab is self.current:
            if slab.is_empty and self.empty is not None:
                self.set_current(None)
                self.freed.clear()
                self.retired.append(slab)
        elif slab.is_empty:
            if slab in self.partial:
                self.partial.remove(slab)
            self.freed.clear()
            if self.empty is not None or (self.current is not None and self.current.is_empty):
                self.retired.append(slab)
            else:
                self.empty = slab
        elif slab not in self.partial:
            self.partial.append(slab)

    def state_of(self, slab: Slab) -> str:
        if slab is self.current:
            return "current"
        if slab is self.empty:
            return "empty"
        return "partial" if slab in self.partial else "full"


Object: TypeAlias = tuple[Slab, int]  # and its index there
Place: TypeAlias = Object | PageBlock


class SlabModel:
    """A whole allocator: objects from slabs, the rest from a BuddyModel."""

    def __init__(self, page_size: int, cpus: int) -> None:
        self.pages = BuddyModel(page_size)
        self.page_size, self.classes = page_size, size_classes(page_size)
        self.caches = [{size: Cache() for size in self.classes} for _ in range(cpus)]
        self.slabs: list[Slab] = []

    def is_object(self, size: int, align: int = 0) -> bool:
        return max(size, align) <= self.classes[-1]

    def alloc(self, cpu: int, size: int, align: int = 0) -> Place | None:
        """What a request of slot `cpu` gets. It fails only if it does so after a trim, too."""
        place = self._try(cpu, size, align)
        if place is None:
            self.trim()
            place = self._try(cpu, size, align)
        return place

    def _try(self, cpu: int, size: int, align: int) -> Place | None:
        if not self.is_object(size, align):
            return self.pages.take(self.pages.pages_for(size), align)
        granted = granted_size(self.page_size, size, align)
        cache = self.caches[cpu][granted]
        found = cache.take()
        self._give_back(cache)
        if found is None and self._add_slab(cpu, granted):
            found = cache.take()
        return found

    def _add_slab(self, cpu: int, size: int) -> bool:
        """Get a slab: of the preferred order, at most a 64th of the heap, or any smaller one."""
        share = sum(section.pages for section in self.pages.sections) // 256
        most = min(slab_order(self.page_size, size), floor_order(max(share, 1)))
        for order in reversed(range(most + 1)):
            block = self.pages.take(1 << order)
            if block is not None:
                slab = Slab(block, cpu, size, self.page_size)
                self.slabs.append(slab)
                self.caches[cpu][size].set_current(slab)
                return True
        return False

    def free(self, cpu: int, place: Place) -> None:
        """Free from slot `cpu`, which need not be the owner's, nor exist."""
        where, index = place
        if isinstance(where, SectionModel):
            where.release(index)
            return
        cache = self.caches[where.cpu][where.size]
        if where.cpu == cpu:
            cache.put(where, index)
            self._give_back(cache)
        else:
            cache.put_remote(where, index)

    def usable_size(self, place: Place) -> int:
        where, index = place
        if isinstance(where, SectionModel):
            return where.live[index] * self.page_size
        return where.size

    def resize(self, cpu: int, place: Place, size: int) -> Place | None:
        """Where the allocation is after a resize from slot `cpu`; None: it failed.

        An object stays if it fits and would not waste half of itself. One that shrinks can always
        stay, if there is no better place.
        """
        where, index = place
        have = self.usable_size(place)
        if isinstance(where, Slab):
            stays = size <= have < 2 * granted_size(self.page_size, size)
        else:
            stays = not self.is_object(size) and self.pages.resize_in_place((where, index), size)
        if stays:
            return place
        new = self.alloc(cpu, size)
        if new is not None:
            self.free(cpu, place)
        elif size <= have:
            if isinstance(where, SectionModel):
                self.pages.resize_in_place((where, index), size)
            return place
        return new

    def trim(self) -> None:
        """Take back all remote frees, and all empty slabs."""
        for caches in self.caches:
            for cache in caches.values():
                cache.trim()
                self._give_back(cache)

    def _give_back(self, cache: Cache) -> None:
        while cache.retired:
            slab = cache.retired.pop()
            self.slabs.remove(slab)
            section, head = slab.block
            section.release(head)

    def slab_counts(self) -> Iterator[tuple[PageBlock, int, int, str, int, int]]:
        """Of each slab: its block, object size, slot, state, objects free here and remotely."""
        for slab in self.slabs:
            state = self.caches[slab.cpu][slab.size].state_of(slab)
            yield slab.block, slab.size, slab.cpu, state, len(slab.free), len(slab.pending)


# --- fragmentation indices, as in Linux's mm/vmstat.c


def unusable_index(free_blocks: Sequence[int], order: int) -> float:
    """Share of the free pages in blocks too small for 2^order pages, in whole thousandths."""
    pages = sum(count << o for o, count in enumerate(free_blocks))
    usable = sum(count << o for o, count in enumerate(free_blocks) if o >= order)
    return (pages - usable) * 1000 // pages / 1000 if pages else 1.0


def extfrag_index(free_blocks: Sequence[int], order: int) -> float:
    """Why 2^order pages cannot be had: -1 they can, 0 lack of memory ... 1 fragmentation."""
    pages, blocks = sum(count << o for o, count in enumerate(free_blocks)), sum(free_blocks)
    if blocks == 0:
        return 0.0
    if any(free_blocks[order:]):
        return -1.0
    return (1000 - (1000 + pages * 1000 // (1 << order)) // blocks) / 1000
