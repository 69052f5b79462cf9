"""Random histories against the models of model.py.

PagesMachine asks only for pages, where everything is predicted: which block, and every free list after
each step. HeapMachine does all that a heap can do, from several slots, and checks what must hold
whatever the policy. Histories record places in a list and offsets, never addresses, which differ
between runs; regions lie at fixed distances from a large power of two, so that the rest does not.
"""

import contextlib
import ctypes
import mmap

import pytest

pytest.importorskip("hypothesis")
from hypothesis import settings, strategies as st  # noqa: E402
from hypothesis.stateful import (  # noqa: E402
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from helpers import address_of, unchanged  # noqa: E402
from model import BuddyModel, ObjectsModel, SectionModel, order_of  # noqa: E402

import bsa  # noqa: E402

BASE = 1 << 23  # every region lies at its own offset from a multiple of this

page_sizes = st.sampled_from([256, 512, 1024, 4096, 16384, 65536])
offsets = st.integers(0, 70000)
picks = st.integers(0, 99)  # which of the live allocations, modulo their number
METADATA = 8192  # bytes enough for the metadata of the heaps made here, but not far too many


class Ground:
    """Memory of a known place relative to BASE, of which a region is carved."""

    def __init__(self, offset, size):
        self.mapping = mmap.mmap(-1, 2 * BASE)
        skip = -address_of(self.mapping) % BASE + offset
        self.region = memoryview(self.mapping)[skip : skip + size]

    def give_back(self):
        """Raises BufferError if anybody still has the region."""
        self.region.release()
        self.mapping.close()


@contextlib.contextmanager
def refused(heap, *errors):
    """Expects one of `errors`, and nothing changed."""
    with unchanged(heap):
        try:
            yield
        except errors as error:
            error.__traceback__ = None  # its frames would keep Blocks alive
        else:
            pytest.fail("not refused")


def chosen(pick, allocations, fits=lambda allocation: True):
    """One of those that fit, or None."""
    allocations = [allocation for allocation in allocations if fits(allocation)]
    return allocations[pick % len(allocations)] if allocations else None


class PageBlock:
    """A live block of pages, owned by a Block or raw, and where the model has it."""

    def __init__(self, held, place):
        self.held, self.place = held, place

    @property
    def is_raw(self):
        return isinstance(self.held, int)

    @property
    def address(self):
        return self.held if self.is_raw else self.held.address

    @property
    def pages(self):
        section, head = self.place
        return section.live[head]


def is_raw(allocation):
    return allocation.is_raw


def is_owned(allocation):
    return not allocation.is_raw


class PagesMachine(RuleBasedStateMachine):
    """Requests for pages only."""

    @initialize(page_size=page_sizes, offset=offsets, pages=st.integers(1, 80))
    def set_up(self, page_size, offset, pages):
        self.page_size = page_size
        self.heap = bsa.Allocator(page_size=page_size, cpus=1)
        self.model = BuddyModel(page_size)
        self.live, self.grounds = [], []
        self.extend(offset, pages)

    @rule(offset=offsets, pages=st.integers(1, 40))
    @precondition(lambda self: len(self.grounds) < 3)
    def extend(self, offset, pages):
        ground = Ground(offset, METADATA + self.page_size * (pages + 2))
        section = self.heap.add_region(ground.region)
        first = section.start % BASE // self.page_size
        self.grounds.append((ground, section, self.model.add(first, section.total_pages)))

    @rule(pick=picks)
    def remove_section(self, pick):
        ground, section, model = chosen(pick, self.grounds)
        if model.live:
            with refused(self.heap, bsa.InUseError):
                self.heap.remove_region(section)
        elif len(self.grounds) > 1:
            self.heap.remove_region(section)
            ground.give_back()
            self.grounds.remove((ground, section, model))
            self.model.sections.remove(model)

    def request(self, place, allocate):
        """What the real request gives, where the model has come to `place`, or has failed (None)."""
        if place is not None:
            return allocate()
        with refused(self.heap, bsa.OutOfMemoryError):
            allocate()
        return None

    def check_place(self, allocation):
        model, head = allocation.place
        section = next(section for _, section, m in self.grounds if m is model)
        assert allocation.address == section.start + head * self.page_size

    def keep(self, held, place):
        if place is not None:
            self.live.append(PageBlock(held, place))
            self.check_place(self.live[-1])

    @rule(count=st.integers(1, 40), align=st.integers(-1, 6), exact=st.booleans())
    def alloc_pages(self, count, align, exact):
        align = self.page_size << align if align >= 0 else 0
        place = self.model.take(count, align, exact)
        self.keep(
            self.request(place, lambda: self.heap.alloc_pages(count, align, exact=exact)), place
        )

    @rule(count=st.integers(1, 20), below=st.integers(0, 100), align=st.integers(0, 22))
    def malloc(self, count, below, align):
        size = max(count * self.page_size - below, self.page_size // 2 + 1)
        place = self.model.take(-(-size // self.page_size), 1 << align)
        self.keep(self.request(place, lambda: self.heap.malloc(size, 1 << align)), place)

    @rule(pick=picks, count=st.integers(0, 40), below=st.integers(0, 100))
    @precondition(lambda self: self.live)
    def resize(self, pick, count, below):
        size = max(count * self.page_size - below, self.page_size // 2 + 1)
        allocation = chosen(pick, self.live)
        place = self.model.resize(allocation.place, size)
        if allocation.is_raw:
            held = self.request(place, lambda: self.heap.realloc(allocation.held, size))
            allocation.held = held or allocation.held
        else:
            self.request(place, lambda: allocation.held.resize(size))
        allocation.place = place or allocation.place
        self.check_place(allocation)

    @rule(pick=picks)
    def detach(self, pick):
        if allocation := chosen(pick, self.live, is_owned):
            allocation.held = allocation.held.detach()

    @rule(pick=picks)
    def take_into_a_block(self, pick):
        if allocation := chosen(pick, self.live, is_raw):
            allocation.held = self.heap.block(allocation.held)

    def forget(self, allocation):
        section, head = allocation.place
        section.release(head)
        self.live.remove(allocation)

    @rule(pick=picks, drop=st.booleans())
    def free_a_block(self, pick, drop):
        if allocation := chosen(pick, self.live, is_owned):
            self.forget(allocation)
            if not drop:
                allocation.held.free()

    @rule(pick=picks, by_count=st.booleans())
    def free_an_address(self, pick, by_count):
        if allocation := chosen(pick, self.live, is_raw):
            if by_count:
                self.heap.dealloc_pages(allocation.held, allocation.pages)
            else:
                self.heap.free(allocation.held)
            self.forget(allocation)
            with refused(self.heap, bsa.NotAllocatedError):
                self.heap.free(allocation.held)

    @rule(pick=picks, more=st.integers(1, 10))
    def misuse(self, pick, more):
        if allocation := chosen(pick, self.live, is_raw):
            if allocation.pages > 1:
                inner = 1 + more % (allocation.pages - 1)
                with refused(self.heap, bsa.NotAllocatedError):
                    self.heap.free(allocation.held + inner * self.page_size)
            for count in (0, allocation.pages + more):
                with refused(self.heap, bsa.InvalidParamError):
                    self.heap.dealloc_pages(allocation.held, count)
            with refused(self.heap, bsa.InvalidParamError):
                self.heap.free(allocation.held + more)

    @invariant()
    def the_free_lists_are_the_models(self):
        for _, section, model in self.grounds:
            assert section.free_pages == model.free_pages
            for order in range(order_of(model.pages) + 1):
                heads = reversed(model.free[order])
                addresses = tuple(section.start + head * self.page_size for head in heads)
                assert section.free_list(order) == addresses
        assert self.heap.free_blocks() == self.model.free_blocks()

    @invariant()
    def the_structures_are_sound(self):
        self.heap.check()

    def teardown(self):
        if not hasattr(self, "heap"):
            return
        for allocation in self.live:
            held, allocation.held = allocation.held, None
            self.heap.free(held)
        for _, section, model in self.grounds:
            fresh = SectionModel(model.first, model.pages)
            assert section.free_blocks() == tuple(map(len, fresh.free))
        self.heap.check()
        self.heap.close()
        for ground, _, _ in self.grounds:
            ground.give_back()


class Allocation:
    """A live or parked allocation; `block` is None while it is a raw address."""

    def __init__(self, address, size, usable, block, tag):
        self.address, self.size, self.usable, self.block = address, size, usable, block
        self.asked = size  # of the core, which for pages remembers it
        self.views = []
        self.was_exported = self.is_parked = False  # exported: from where it is now
        self.older = []  # (address, usable) of exported bytes that resizes have left behind
        self.write(tag)

    def write(self, tag):
        """Fills all that was granted."""
        self.bytes = (tag.to_bytes(3, "little") * (self.usable // 3 + 1))[: self.usable]
        ctypes.memmove(self.address, self.bytes, self.usable)

    @property
    def is_raw(self):
        return self.block is None

    @property
    def is_live_block(self):
        return self.block is not None and not self.is_parked

    def requested(self, page_size):
        """Bytes asked for, as far as anybody can know: a raw object counts as granted."""
        if self.is_parked:
            return 0
        if self.is_raw:
            return self.usable if self.usable < page_size else self.asked
        return self.size

    @property
    def addresses(self):
        return [self.address, *(address for address, _ in self.older)]


sizes = st.one_of(
    st.integers(0, 300),
    st.integers(0, 5000),
    st.builds(lambda order, more: (1 << order) + more, st.integers(0, 17), st.integers(-1, 1)),
)
aligns = st.one_of(st.none(), st.integers(0, 17).map(lambda order: 1 << order))


class HeapMachine(RuleBasedStateMachine):
    """All that can be done with a heap."""

    @initialize(
        page_size=page_sizes, cpus=st.integers(1, 3), offset=offsets, pages=st.integers(1, 80)
    )
    def set_up(self, page_size, cpus, offset, pages):
        self.page_size = page_size
        self.heap = bsa.Allocator(page_size=page_size, cpus=cpus)
        self.model = ObjectsModel(page_size, self.heap.size_classes)
        self.known, self.grounds = [], []
        self.tag = 0
        self.limit = None
        self.extend(offset, pages)
        bsa.set_cpu(0)

    # --- sections, slots, limit

    @rule(offset=offsets, pages=st.integers(1, 40))
    @precondition(lambda self: len(self.grounds) < 3)
    def extend(self, offset, pages):
        ground = Ground(offset, METADATA + self.page_size * (pages + 2))
        self.grounds.append((ground, self.heap.add_region(ground.region)))
        with refused(self.heap, bsa.MemoryOverlapError):
            self.heap.add_region(ground.region[-1:])

    @rule(pick=picks)
    def remove_section(self, pick):
        ground, section = chosen(pick, self.grounds)
        inside = range(section.start, section.start + section.size)
        if any(address in inside for address in self.model.live):
            self.heap.trim()  # which the attempt does
            with refused(self.heap, bsa.InUseError):
                self.heap.remove_region(section)
        elif len(self.grounds) > 1:
            self.heap.remove_region(section)
            ground.give_back()
            self.grounds.remove((ground, section))

    @rule(cpu=st.integers(0, 3))
    def move_to_another_cpu(self, cpu):
        bsa.set_cpu(cpu)

    def can_allocate(self):
        """Whether the thread's slot exists; else no request succeeds."""
        if bsa.current_cpu() < self.heap.cpus:
            return True
        with refused(self.heap, bsa.InvalidParamError):
            self.heap.malloc(8)
        return False

    @rule(pages=st.one_of(st.none(), st.integers(0, 60)))
    def set_limit(self, pages):
        self.limit = self.heap.limit = None if pages is None else pages * self.page_size

    # --- allocating

    def keep(self, block, address, size, usable):
        self.model.add(address, usable)
        self.tag += 1
        self.known.append(Allocation(address, size, usable, block, self.tag))

    def room(self):
        """Bytes of the largest block that could be had."""
        if self.limit is None:
            return self.heap.largest_free
        return min(self.heap.largest_free, max(self.limit - self.heap.allocated_bytes, 0))

    def check_refusal(self, size, align):
        """After an OutOfMemoryError: no block could have held the request, nor a free object."""
        if align > self.page_size:
            return  # a large enough block need not hold an aligned one
        if not self.model.is_object(size, align):
            assert self.room() < self.model.granted(size, align)
            return
        assert self.room() < self.page_size
        granted = self.model.granted(size, align)
        for slab in self.heap.slabs():
            if slab.size == granted and slab.cpu == bsa.current_cpu():
                assert slab.free_count == slab.remote_free_count == 0

    def request(self, size, align, allocate):
        """What allocate() gives; None where that is rightly refused."""
        if self.can_allocate():
            try:
                return allocate()
            except bsa.OutOfMemoryError as error:
                assert (error.requested, error.align) == (size, align or 0)
                self.check_refusal(size, align or 0)
        return None

    @rule(size=sizes, align=aligns, zero=st.booleans())
    def malloc(self, size, align, zero):
        address = self.request(size, align, lambda: self.heap.malloc(size, align, zero=zero))
        if address is not None:
            usable = self.model.granted(size, align or 0)
            assert self.heap.usable_size(address) == usable
            assert address % self.model.least_alignment(size, align or 0) == 0
            assert not (zero and any(ctypes.string_at(address, usable)))
            self.keep(None, address, size, usable)

    @rule(size=sizes, align=aligns, zero=st.booleans())
    def alloc(self, size, align, zero):
        block = self.request(size, align, lambda: self.heap.alloc(size, align, zero=zero))
        if block is not None:
            usable = self.model.granted(size, align or 0)
            assert (block.size, block.usable_size) == (size, usable)
            assert block.address % self.model.least_alignment(size, align or 0) == 0
            assert not (zero and any(block[:]))
            self.keep(block, block.address, size, usable)

    @rule(data=st.binary(max_size=300))
    def alloc_from(self, data):
        block = self.request(len(data), None, lambda: self.heap.alloc_from(data))
        if block is not None:
            assert block[:] == data
            self.keep(block, block.address, len(data), self.model.granted(len(data)))

    @rule(count=st.integers(1, 20), exact=st.booleans())
    def alloc_pages(self, count, exact):
        if self.can_allocate():
            try:
                block = self.heap.alloc_pages(count, exact=exact)
            except bsa.OutOfMemoryError:
                assert self.room() < self.page_size << order_of(count)
            else:
                pages = count if exact else 1 << order_of(count)
                assert block.usable_size == pages * self.page_size
                self.keep(block, block.address, count * self.page_size, block.usable_size)

    @rule(count=st.integers(0, 30), size=st.integers(0, 200))
    def malloc_many(self, count, size):
        if self.can_allocate():
            try:
                addresses = self.heap.malloc_many(count, size)
            except bsa.OutOfMemoryError:
                return  # and the walk says that nothing was kept
            assert len(addresses) == count
            for address in addresses:
                self.keep(None, address, size, self.model.granted(size))

    # --- resizing, changing hands

    @rule(pick=picks, size=sizes)
    def resize(self, pick, size):
        allocation = chosen(pick, self.known, lambda a: not a.is_parked)
        if allocation is None or not self.can_allocate():
            return
        if allocation.views:
            with refused(self.heap, bsa.InUseError):
                allocation.block.resize(size)
            return
        try:
            if allocation.is_raw:
                address = self.heap.realloc(allocation.address, size)
            else:
                allocation.block.resize(size)
                assert len(allocation.block) == size
                address = allocation.block.address
        except bsa.OutOfMemoryError:
            assert size > allocation.usable  # one that shrinks can stay where it is
        else:
            self.moved(allocation, address, size)

    def moved(self, allocation, address, size):
        kept = min(allocation.size, size)
        assert ctypes.string_at(address, kept) == allocation.bytes[:kept]
        if allocation.was_exported and address != allocation.address:
            allocation.older.append((allocation.address, allocation.usable))
            allocation.was_exported = False
        else:
            self.model.remove(allocation.address)
        allocation.address, allocation.size, allocation.asked = address, size, size
        allocation.usable = self.heap.usable_size(address)
        assert allocation.usable >= size
        self.model.add(address, allocation.usable)
        self.tag += 1
        allocation.write(self.tag)

    @rule(pick=picks)
    def detach(self, pick):
        allocation = chosen(pick, self.known, lambda a: a.is_live_block)
        if allocation is None:
            return
        if allocation.was_exported or allocation.older:
            with refused(self.heap, bsa.InUseError):
                allocation.block.detach()
        else:
            assert allocation.block.detach() == allocation.address
            assert allocation.block.freed
            allocation.block = None

    @rule(pick=picks)
    def take_into_a_block(self, pick):
        if allocation := chosen(pick, self.known, is_raw):
            allocation.block = self.heap.block(allocation.address)
            allocation.size = allocation.block.size
            assert allocation.size == allocation.usable

    # --- views

    @rule(pick=picks)
    def export(self, pick):
        if allocation := chosen(pick, self.known, lambda a: a.is_live_block):
            view = memoryview(allocation.block)
            assert view == allocation.bytes[: allocation.size]
            allocation.views.append(view)
            allocation.was_exported = True

    @rule(pick=picks)
    def release_a_view(self, pick):
        if allocation := chosen(pick, self.known, lambda a: a.views):
            allocation.views.pop().release()

    # --- giving back

    def forget(self, allocation):
        self.known.remove(allocation)
        for address in allocation.addresses:
            self.model.remove(address)

    @rule(pick=picks)
    def free_an_address(self, pick):
        if allocation := chosen(pick, self.known, is_raw):
            self.heap.free(allocation.address)
            self.forget(allocation)
            # Of the second kind if its slab went with it, and it was at no page's start.
            with refused(self.heap, bsa.NotAllocatedError, bsa.InvalidParamError):
                self.heap.free(allocation.address)

    @rule(pick=picks)
    def free_a_block(self, pick):
        allocation = chosen(pick, self.known, is_owned)
        if allocation is None:
            return
        if allocation.views:
            with refused(self.heap, bsa.InUseError):
                allocation.block.free()
        elif not allocation.is_parked:
            allocation.block.free()
            self.park(allocation)
        if not allocation.views:
            with refused(self.heap, bsa.NotAllocatedError):
                allocation.block.free()

    def park(self, allocation):
        """A freed Block keeps what was exported, until it goes itself, and nothing else."""
        if allocation.was_exported:
            allocation.is_parked = True
        elif allocation.older:
            self.model.remove(allocation.address)
            allocation.address, allocation.usable = allocation.older.pop()
            allocation.bytes = ctypes.string_at(allocation.address, allocation.usable)
            allocation.is_parked = True
        else:
            self.forget(allocation)

    @rule(pick=picks)
    def drop_a_block(self, pick):
        if allocation := chosen(pick, self.known, is_owned):
            self.drop(allocation)

    def drop(self, allocation):
        while allocation.views:
            allocation.views.pop().release()
        allocation.block = None
        self.forget(allocation)

    @rule()
    def trim(self):
        free = self.heap.free_pages
        assert self.heap.trim() == self.heap.free_pages - free
        slabs = self.heap.slabs()
        assert all(slab.objects() and slab.remote_free_count == 0 for slab in slabs)
        blocks = sum(usable for usable in self.model.live.values() if usable >= self.page_size)
        assert blocks + sum(slab.nbytes for slab in slabs) == self.heap.allocated_bytes

    # --- misuse

    @rule(pick=picks, more=st.integers(0, 1 << 20))
    def give_a_wrong_address(self, pick, more):
        if allocation := chosen(pick, self.known):
            inside = allocation.address + 1 + more % (allocation.usable - 1)
            for refuse in (self.heap.free, self.heap.block, self.heap.usable_size):
                with refused(self.heap, bsa.InvalidParamError, bsa.NotAllocatedError):
                    refuse(inside)
            assert inside not in self.heap

    @rule(pick=picks, other=picks)
    def give_addresses_of_which_one_is_wrong(self, pick, other):
        allocation = chosen(pick, self.known, is_raw)
        wrong = chosen(other, self.known)
        if allocation is not None:
            # Twice the same, owned by a Block, or inside.
            addresses = [
                allocation.address,
                wrong.address + (wrong.is_raw and wrong is not allocation),
            ]
            with refused(self.heap, bsa.InvalidParamError, bsa.NotAllocatedError):
                self.heap.free_many(addresses)

    @rule(pick=picks)
    def reach_for_a_blocks_memory(self, pick):
        if allocation := chosen(pick, self.known, is_owned):
            for address in allocation.addresses:
                for refuse in (self.heap.free, self.heap.block, lambda a: self.heap.realloc(a, 1)):
                    with refused(self.heap, bsa.InvalidParamError):
                        refuse(address)

    @rule(pick=picks, more=st.integers(-5, 5))
    def give_a_foreign_address(self, pick, more):
        _, section = chosen(pick, self.grounds)
        metadata = section.region_start + section.metadata_size // 2 + more
        for address in (metadata, section.start + section.size + abs(more), abs(more)):
            with refused(self.heap, bsa.NotFoundError):
                self.heap.free(address)
            assert address not in self.heap

    # --- what always holds

    @invariant()
    def the_walk_lists_what_is_live(self):
        expected = []
        for allocation in self.known:
            usable = allocation.usable
            kind = "object" if usable < self.page_size else "pages"
            if allocation.block is not None:
                kind = "parked" if allocation.is_parked else "block"
            expected.append((allocation.address, usable, kind))
            expected += [(address, usable, "parked") for address, usable in allocation.older]
        assert sorted(self.heap.walk()) == sorted(expected)
        assert len(self.heap) == sum(kind != "parked" for _, _, kind in expected)
        parked = sum(usable for _, usable, kind in expected if kind == "parked")
        assert self.heap.stats().parked_bytes == parked

    @invariant()
    def bytes_stay_as_written(self):
        for allocation in self.known:
            assert ctypes.string_at(allocation.address, allocation.usable) == allocation.bytes

    @invariant()
    def everything_lies_inside_its_section(self):
        for address, usable in self.model.live.items():
            section = self.heap.section_of(address)
            assert section.start <= address
            assert address + usable <= section.start + section.size

    @invariant()
    def slabs_hold_the_live_objects(self):
        in_slabs = [address for slab in self.heap.slabs() for address in slab.objects()]
        live = self.model.live.items()
        assert sorted(in_slabs) == sorted(a for a, usable in live if usable < self.page_size)

    @invariant()
    def sums_agree(self):
        blocks = self.heap.free_blocks()
        assert sum(count << order for order, count in enumerate(blocks)) == self.heap.free_pages
        free = self.heap.free_pages * self.page_size
        assert free + self.heap.allocated_bytes == self.heap.managed_bytes
        requested = sum(allocation.requested(self.page_size) for allocation in self.known)
        assert self.heap.requested_bytes == requested
        stats = self.heap.stats()
        assert stats.current_bytes + stats.parked_bytes == sum(self.model.live.values())

    @invariant()
    def the_structures_are_sound(self):
        self.heap.check()

    def teardown(self):
        bsa.set_cpu(None)
        if not hasattr(self, "heap"):
            return
        for allocation in list(self.known):
            if allocation.is_raw:
                self.heap.free(allocation.address)
            else:
                self.drop(allocation)
        self.heap.trim()
        assert self.heap.free_pages == self.heap.total_pages
        self.heap.check()
        self.heap.close()
        for ground, _ in self.grounds:
            ground.give_back()


TestPages = PagesMachine.TestCase
TestHeap = HeapMachine.TestCase
TestPages.settings = TestHeap.settings = settings(stateful_step_count=60)
