"""All that a bsa.Allocator can do, Blocks, views, slots and sections included.

What is predicted is what holds for any policy: who is live, how large, and whether a request may
fail. PageExerciser and SlabExerciser predict the rest.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import bsa

from . import models
from .exerciser import ProgramError, blame, expect, expect_equal
from .memory import peek, poke
from .on_bsa import OnBsa
from .raw import Allocation, RawExerciser

LOW_END = 1 << 32  # what alloc_pages_lowmem() gives ends at or below, as a physical address

# Calls that can never be right: (errors, method, arguments).
WRONG_CALLS: tuple[tuple[type[Exception], str, tuple[Any, ...]], ...] = (
    (bsa.InvalidParamError, "malloc", (-1,)),
    (bsa.InvalidParamError, "malloc", (8, 24)),
    (bsa.InvalidParamError, "alloc_pages", (0,)),
    (bsa.InvalidParamError, "alloc_pages", ((1 << models.MAX_ORDER) + 1,)),
    (bsa.InvalidParamError, "alloc_pages", (1, 8)),
    (bsa.InvalidParamError, "free", (-1,)),
    (bsa.InvalidParamError, "dealloc_pages", (-1, 1)),
    (OverflowError, "malloc", (1 << 64,)),
    (TypeError, "malloc", ("8",)),
    (TypeError, "alloc", (8.0,)),
    (TypeError, "alloc_from", (8,)),
    (TypeError, "free_many", (8,)),
    (TypeError, "remove_region", (None,)),
    (BufferError, "add_region", (bytes(64),)),
    (bsa.InvalidParamError, "add_region", (bytearray(64),)),
    (bsa.InvalidParamError, "malloc_many", (-1, 8)),
    (bsa.InvalidParamError, "slabs", (-1,)),
)

# Any use of an allocator that is closed.
USES: tuple[tuple[Any, ...], ...] = (
    ("malloc", 8),
    ("alloc", 8),
    ("alloc_pages", 1),
    ("malloc_many", 2, 8),
    ("free", 4096),
    ("free_many", [4096]),
    ("realloc", 4096, 8),
    ("block", 4096),
    ("add_region", 1 << 16),
    ("trim",),
    ("check",),
    ("stats",),
    ("walk",),
    ("slabs",),
    ("free_blocks",),
)


class HeapAllocation(Allocation):
    """A live or parked allocation; `block` is None while it is a raw address."""

    def __init__(self, address: int, size: int, usable: int) -> None:
        super().__init__(address, size, usable)
        self.asked = size  # of the core, which for pages remembers it
        self.block: bsa.Block | None = None
        self.views: list[memoryview] = []
        self.is_exported = False  # from where it is now
        self.is_parked = False
        self.older: list[tuple[int, int]] = []  # exported extents that resizes have left behind

    @property
    def is_live_block(self) -> bool:
        return self.block is not None and not self.is_parked

    def requested(self, page_size: int) -> int:
        """Bytes asked for, as far as anybody can know: a raw object counts as granted."""
        if self.is_parked:
            return 0
        if self.block is None:
            return self.usable if self.usable < page_size else self.asked
        return self.size


class HeapExerciser(OnBsa, RawExerciser):
    """A bsa.Allocator, or one of a class derived from it."""

    step_names = RawExerciser.step_names | frozenset(
        "cpu extend remove_section trim limit alloc alloc_from alloc_pages alloc_pages_lowmem"
        " resize detach adopt export release_view free_block drop dealloc free_pages_wrongly"
        " free_many_wrongly free_inside_freed take_from_block wrong_call".split()
    )

    # --- what there is

    def open(self) -> None:
        RawExerciser.open(self)
        OnBsa.open(self)

    def capabilities(self) -> dict[str, Any]:
        names = "has_alignment has_zero has_realloc has_usable_size has_bulk has_close has_blocks"
        names += " has_pages has_cpus has_sections has_limit detects_double_free"
        names += " detects_interior_free detects_foreign_free merges"
        return {**dict.fromkeys(names.split(), True), **self.flags}

    def raw_handles(self) -> list[int]:
        return [h for h, allocation in self.live.items() if allocation.block is None]

    def block_handles(self) -> list[int]:
        """Handles of live Blocks."""
        return [h for h, allocation in self.live.items() if allocation.is_live_block]

    def owned_handles(self) -> list[int]:
        """Handles of Blocks, live or parked."""
        return [h for h, allocation in self.live.items() if allocation.block is not None]

    def page_handles(self) -> list[int]:
        """Handles of raw pages."""
        return [h for h in self.raw_handles() if self.live[h].usable >= self.page_size]

    def viewed_handles(self) -> list[int]:
        return [h for h, allocation in self.live.items() if allocation.views]

    def resizable_handles(self) -> list[int]:
        return [h for h, allocation in self.live.items() if not allocation.is_parked]

    def freed_handles(self) -> list[int]:
        """Addresses of a Block's older extents are not free either."""
        taken = {address for address, _ in self.extents()}
        return [h for h, (address, _) in self.freed.items() if address not in taken]

    def extents(self) -> Iterator[tuple[int, int]]:
        """(address, bytes) of all memory that is not free."""
        for allocation in self.live.values():
            yield allocation.address, allocation.usable
            yield from allocation.older

    def find_block(self, handle: int) -> tuple[Any, bsa.Block]:
        allocation = self.find(handle)
        if allocation.block is None:
            raise ProgramError(f"handle {handle} is no Block")
        return allocation, allocation.block

    # --- memory

    def make_allocation(self, address: int, size: int, usable: int) -> HeapAllocation:
        return HeapAllocation(address, size, usable)

    def read(self, address: int, size: int) -> bytes:
        return peek(address, size)

    def write(self, address: int, data: bytes) -> None:
        poke(address, data)

    def regions(self) -> Iterable[tuple[int, int]]:
        return [(section.start, section.size) for section in self.heap.sections]

    def granted(self, size: int, align: int | None) -> int:
        return models.granted_size(self.page_size, size, align or 0)

    def least_alignment(self, size: int, align: int | None) -> int:
        return models.least_alignment(self.page_size, size, align or 0)

    def expect_sound(self, allocation: Allocation, align: int | None) -> None:
        super().expect_sound(allocation, align)
        for address, length in self.extents():
            if address < allocation.end and allocation.address < address + length:
                blame(f"{allocation.address:#x} overlaps {length} parked bytes at {address:#x}")
        usable = self.heap.usable_size(allocation.address)
        expect_equal(usable, allocation.usable, f"usable_size() of {allocation.size} bytes")

    # --- liveness

    def is_object(self, size: int, align: int) -> bool:
        return max(size, align) <= models.size_classes(self.page_size)[-1]

    def fits(
        self, nbytes: int, align: int, serves: Callable[[int, int], bool] = lambda *_: True
    ) -> bool:
        """Whether a free block holds an aligned block of `nbytes`, a power of two of pages."""
        limit = self.heap.limit
        if limit is not None and self.heap.allocated_bytes + nbytes > limit:
            return False
        step = max(nbytes, align)
        for section in self.heap.sections:
            for order in range(models.MAX_ORDER + 1):
                for start in section.free_list(order):
                    end = start + (self.page_size << order) - nbytes
                    for address in range(-(-start // step) * step, end + 1, step):
                        if serves(address, nbytes):
                            return True
        return False

    def expect_out_of_memory(self, size: int, align: int | None) -> None:
        """No block could have held the request, nor was an object of its class free."""
        align = align or 0
        granted = models.granted_size(self.page_size, size, align)
        if not self.is_object(size, align):
            expect(not self.fits(granted, align), f"{size} bytes were refused, and would fit")
            return
        expect(not self.fits(self.page_size, 0), f"{size} bytes were refused, a page is free")
        for slab in self.heap.slabs():
            if slab.size == granted and slab.cpu == bsa.current_cpu():
                free = slab.free_count + slab.remote_free_count
                expect_equal(free, 0, f"{size} bytes were refused; the number of free objects")

    def request(self, size: int, align: int | None, ask: Callable[[], Any]) -> Any:
        """As for any allocator; but a thread without a slot is refused everything."""
        if not self.has_slot:
            self.refused(bsa.InvalidParamError, ask)
            return None
        before = list(self.heap.walk())
        given = super().request(size, align, ask)
        if given is None:
            expect_equal(list(self.heap.walk()), before, "after a failed request, the walk")
        return given

    # --- sections, limit

    def remove_section(self, index: int) -> None:
        """Remove a section; one in use must refuse."""
        section = self.piece(index).section
        inside = range(section.start, section.start + section.size)
        if any(address in inside for address, _ in self.extents()):
            self.heap.trim()  # which the attempt does
            self.refused(bsa.InUseError, self.heap.remove_region, section)
        else:
            self.remove(index)
            self.freed = {h: was for h, was in self.freed.items() if was[0] not in inside}

    def limit(self, nbytes: int | None) -> None:
        self.heap.limit = nbytes
        expect_equal(self.heap.limit, nbytes, "limit")

    def trim(self) -> None:
        free = self.heap.free_pages
        expect_equal(self.heap.trim(), self.heap.free_pages - free, "trim()")
        slabs = self.heap.slabs()
        for slab in slabs:
            expect(slab.objects() and not slab.remote_free_count, "trim() has left an empty slab")
        blocks = sum(usable for _, usable in self.extents() if usable >= self.page_size)
        expected = blocks + sum(slab.nbytes for slab in slabs)
        expect_equal(self.heap.allocated_bytes, expected, "allocated_bytes after trim()")

    # --- requests

    def keep_block(
        self,
        handle: int,
        block: Any,
        size: int,
        align: int | None,
        has: bytes = b"",
        usable: int = -1,
    ) -> None:
        if not isinstance(block, bsa.Block):
            blame(f"{block!r} is no Block")
        expect_equal((block.size, len(block)), (size, size), "size and length of the Block")
        allocation = self.new_allocation(block.address, size, align, has, usable)
        expect_equal(block.usable_size, allocation.usable, "the Block's usable_size")
        allocation.block = block
        self.live[handle] = allocation

    def alloc(self, size: int, align: int | None = None, zero: bool = False) -> None:
        handle, options = self.new_handle(), self.options(align, zero)
        block = self.request(size, align, lambda: self.heap.alloc(size, **options))
        if block is not None:
            self.keep_block(handle, block, size, align, bytes(size * zero))

    def alloc_from(self, size: int) -> None:
        """A copy of `size` bytes."""
        handle, data = self.new_handle(), bytes(i * 7 & 255 for i in range(size))
        block = self.request(size, None, lambda: self.heap.alloc_from(data))
        if block is not None:
            self.keep_block(handle, block, size, None, data)

    def alloc_pages(self, count: int, align: int | None = None, exact: bool = False) -> None:
        handle, size = self.new_handle(), count * self.page_size
        needed = self.page_size << models.order_of(count)
        align = max(align or 0, self.page_size)
        block = self.request(
            needed, align, lambda: self.heap.alloc_pages(count, align, exact=exact)
        )
        if block is not None:
            self.keep_block(handle, block, size, align, usable=size if exact else needed)

    def alloc_pages_lowmem(self, count: int) -> None:
        handle, size = self.new_handle(), count * self.page_size
        needed = self.page_size << models.order_of(count)
        if not self.has_slot:
            return
        try:
            block = self.heap.alloc_pages_lowmem(count)
        except bsa.OutOfMemoryError as error:
            self.forgive(error)
            expect(not self.fits(needed, 0, self.is_low), f"{count} low pages were to be had")
        else:
            expect(self.is_low(block.address, needed), "the pages are not low")
            self.keep_block(handle, block, size, self.page_size, usable=needed)

    def is_low(self, address: int, nbytes: int) -> bool:
        """Whether all of it lies below 4 GiB of physical address."""
        section = self.heap.section_of(address)
        physical = next((p.physical for p in self.pieces if p.section is section), None)
        offset = address if physical is None else physical + address - section.region_start
        return bool(offset + nbytes <= LOW_END)

    def malloc_many(self, count: int, size: int) -> None:
        """`count` allocations at once, all or none."""
        handles = [self.new_handle() for _ in range(count)]
        if not self.has_slot:
            return
        try:
            addresses = self.heap.malloc_many(count, size)
        except bsa.OutOfMemoryError as error:
            self.forgive(error)  # and the walk says that nothing was kept
        else:
            expect_equal(len(addresses), count, "the number of addresses")
            for handle, address in zip(handles, addresses):
                self.live[handle] = self.new_allocation(address, size, None)

    # --- resizing, changing hands

    def realloc(self, handle: int, size: int) -> None:
        """Resize a raw allocation."""
        self.find_raw(handle)
        self.resize(handle, size)

    def resize(self, handle: int, size: int) -> None:
        """Resize a raw allocation or a Block; one with views must refuse."""
        allocation = self.find(handle)
        if allocation.is_parked:
            raise ProgramError(f"handle {handle} is parked")
        resize = self.resize_raw if allocation.block is None else self.resize_block
        if allocation.views:
            self.refused(bsa.InUseError, resize, allocation, size)
        elif not self.has_slot and not (allocation.is_exported and size <= allocation.usable):
            self.refused(bsa.InvalidParamError, resize, allocation, size)
        else:
            try:
                address = resize(allocation, size)
            except bsa.OutOfMemoryError as error:
                self.forgive(error)
                # One that shrinks can stay where it is.
                expect(
                    size > allocation.usable, f"{size} of {allocation.usable} bytes were refused"
                )
                self.expect_out_of_memory(size, None)
            else:
                self.resized(handle, address, size)

    def resize_raw(self, allocation: HeapAllocation, size: int) -> Any:
        return self.heap.realloc(allocation.address, size)

    def resize_block(self, allocation: HeapAllocation, size: int) -> int:
        block = allocation.block
        assert block is not None
        self.call("Block.resize()", block.resize, size)
        expect_equal((block.size, len(block)), (size, size), "size and length of the Block")
        return block.address

    def resized(self, handle: int, address: int, size: int) -> None:
        allocation = self.live.pop(handle)  # what it has come to may overlap what it was
        kept = min(allocation.size, size)
        if allocation.is_exported and address != allocation.address:
            allocation.older.append((allocation.address, allocation.usable))
            allocation.is_exported = False
        allocation.address, allocation.size, allocation.asked = address, size, size
        allocation.usable = self.heap.usable_size(address)
        expect(allocation.usable >= size, f"{size} bytes have become {allocation.usable}")
        self.expect_sound(allocation, None)
        if self.read(address, kept) != allocation.bytes[:kept]:
            blame(f"{kept} bytes at {address:#x} were to be the same as before")
        self.live[handle] = allocation
        self.fill(allocation)

    def detach(self, handle: int) -> None:
        """Give up ownership, which a Block that was exported must refuse."""
        allocation, block = self.find_live_block(handle)
        if allocation.is_exported or allocation.older:
            self.refused(bsa.InUseError, self.call, "Block.detach()", block.detach)
        else:
            address = self.call("Block.detach()", block.detach)
            expect_equal(address, allocation.address, "the address")
            expect(block.freed, "a detached Block must be `freed`")
            allocation.block = None

    def adopt(self, handle: int) -> None:
        """Take a raw allocation into a Block."""
        allocation = self.find_raw(handle)
        allocation.block = self.heap.block(allocation.address)
        expect(isinstance(allocation.block, bsa.Block), f"{allocation.block!r} is no Block")
        allocation.size = allocation.usable
        expect_equal(allocation.block.size, allocation.usable, "size of the Block")

    # --- views

    def export(self, handle: int) -> None:
        allocation, block = self.find_live_block(handle)
        view = self.call("memoryview()", memoryview, block)
        expect_equal(view, allocation.bytes[: allocation.size], "the view")
        allocation.views.append(view)
        allocation.is_exported = True

    def release_view(self, handle: int) -> None:
        allocation = self.find(handle)
        if not allocation.views:
            raise ProgramError(f"handle {handle} has no views")
        self.call("release()", allocation.views.pop().release)

    # --- giving back

    def free_block(self, handle: int, by_heap: bool = False) -> None:
        """Free a Block. One with views must refuse, and so must one that was freed."""
        allocation, block = self.find_block(handle)
        free = self.heap.free if by_heap else lambda block: self.call("Block.free()", block.free)
        if allocation.views:
            self.refused(bsa.InUseError, free, block)
        else:
            if not allocation.is_parked:
                free(block)
                self.park(handle)
            expect(block.freed, "a freed Block must be `freed`")
            self.refused(bsa.NotAllocatedError, free, block)

    def park(self, handle: int) -> None:
        """A freed Block keeps what was exported, until it goes itself, and nothing else."""
        allocation = self.live[handle]
        if allocation.is_exported:
            allocation.is_parked = True
        elif allocation.older:
            allocation.address, allocation.usable = allocation.older.pop()
            allocation.bytes = self.read(allocation.address, allocation.usable)
            allocation.is_parked = True
        else:
            self.forget(handle)

    def drop(self, handle: int) -> None:
        """Let go of a Block and its views, which frees what it has."""
        allocation, _ = self.find_block(handle)
        while allocation.views:
            allocation.views.pop().release()
        allocation.block = _ = None
        self.forget(handle)

    def dealloc(self, handle: int) -> None:
        """Free raw pages by their number."""
        allocation = self.find_raw(handle)
        self.heap.dealloc_pages(allocation.address, allocation.usable // self.page_size)
        self.forget(handle)

    def find_live_block(self, handle: int) -> tuple[Any, bsa.Block]:
        allocation, block = self.find_block(handle)
        if allocation.is_parked:
            raise ProgramError(f"handle {handle} is parked")
        return allocation, block

    # --- misuse

    # Of the second kind if the slab went with the object, and it was at no page's start.
    wrong_address = (bsa.NotAllocatedError, bsa.InvalidParamError)

    def free_inside_freed(self, handle: int, more: int) -> None:
        """Free an address inside of what was freed, and where nothing starts by now."""
        if handle not in self.freed:
            raise ProgramError(f"handle {handle} was not freed")
        address, usable = self.freed[handle]
        inside = address + 1 + more % (usable - 1)
        if inside not in {address for address, _ in self.extents()}:
            self.refused(self.wrong_address, self.heap.free, inside)

    def free_inside(self, handle: int, more: int) -> None:
        """Give an address inside an allocation."""
        allocation, heap = self.find(handle), self.heap
        inside = allocation.address + 1 + more % (allocation.usable - 1)
        for refuse in (heap.free, heap.block, heap.usable_size):
            self.refused(self.wrong_address, refuse, inside)
        expect(inside not in heap, f"{inside:#x} is in the heap, the address of nothing")

    def free_foreign(self, kind: int) -> None:
        """Give an address outside the heap: metadata, the byte behind, none, another's."""
        section = self.heap.sections[kind % len(self.heap.sections)]
        with bsa.Allocator(1 << 16, cpus=bsa.current_cpu() + 1) as other:
            block = other.alloc(8)
            for address in (
                section.region_start + kind % section.metadata_size,
                section.start + section.size,
                kind,
                block.address,
            ):
                self.refused(bsa.NotFoundError, self.heap.free, address)
                expect(address not in self.heap, f"{address:#x} is in the heap")
            self.refused(bsa.NotFoundError, self.heap.free, block)

    def free_pages_wrongly(self, handle: int, more: int) -> None:
        """Free raw pages from within, and by a wrong number of them."""
        allocation, heap = self.find_raw(handle), self.heap
        address, pages = allocation.address, allocation.usable // self.page_size
        for count in (0, pages + 1 + more):
            self.refused(bsa.InvalidParamError, heap.dealloc_pages, address, count)
        self.refused(bsa.InvalidParamError, heap.dealloc_pages, address + 1, 1)
        if pages > 1:
            inner = address + (1 + more % (pages - 1)) * self.page_size
            for free in (heap.free, lambda page: heap.dealloc_pages(page, 1)):
                self.refused(bsa.NotAllocatedError, free, inner)

    def free_many_wrongly(self, handle: int, other: int) -> None:
        """Free an address with another that is wrong: the same, owned by a Block, or inside."""
        address, wrong = self.find_raw(handle).address, self.find(other)
        inside = int(wrong.block is None and other != handle)
        addresses = [address, wrong.address + inside]
        self.refused(self.wrong_address, self.heap.free_many, addresses)

    def take_from_block(self, handle: int) -> None:
        """Reach for the memory of a Block by its address."""
        allocation, _ = self.find_block(handle)
        del _
        heap = self.heap
        for address in (allocation.address, *(address for address, _ in allocation.older)):
            for refuse in (heap.free, heap.block, lambda address: heap.realloc(address, 1)):
                self.refused(bsa.InvalidParamError, refuse, address)

    def wrong_call(self, index: int) -> None:
        """Make a call that can never be right."""
        errors, name, arguments = WRONG_CALLS[index]
        self.refused(errors, getattr(self.heap, name), *arguments)

    def reopen(self) -> None:
        """Close with all that is live, and make another; views must keep it from closing."""
        if self.viewed_handles():
            self.refused(bsa.InUseError, self.heap.close)
            return
        self.heap.close()
        self.expect_closed()
        self.live.clear()
        for piece in self.pieces:
            self.call("the end of its Blocks", piece.ground.give_back)
        self.pieces.clear()
        self.make_another()
        self.open()

    def expect_closed(self) -> None:
        heap, closed = self.heap, bsa.ClosedError
        heap.close()  # once more
        expect(heap.closed, "a closed allocator must be `closed`")
        for name, *arguments in USES:
            self.raises(closed, getattr(self.heap.wrapped, name), *arguments)
        for allocation in self.live.values():
            if allocation.block is not None:
                expect(allocation.block.freed, "a Block must be `freed` after close()")
                self.raises(closed, memoryview, allocation.block)
                self.raises((closed, bsa.NotAllocatedError), allocation.block.free)

    # --- what always holds

    def verify(self) -> None:
        OnBsa.verify(self)
        RawExerciser.verify(self)
        live: list[tuple[int, int, str]] = []
        for allocation in self.live.values():
            kind = "object" if allocation.usable < self.page_size else "pages"
            if allocation.block is not None:
                kind = "parked" if allocation.is_parked else "block"
            live.append((allocation.address, allocation.usable, kind))
            live += [(address, usable, "parked") for address, usable in allocation.older]
        expect_equal(sorted(self.heap.walk()), sorted(live), "the walk")
        self.verify_sums(live)
        self.verify_slabs(live)

    def verify_sums(self, live: list[tuple[int, int, str]]) -> None:
        heap, stats = self.heap, self.heap.stats()
        count = sum(kind != "parked" for _, _, kind in live)
        expect_equal((len(heap), stats.current_count), (count, count), "the number that is live")
        parked = sum(usable for _, usable, kind in live if kind == "parked")
        expect_equal(stats.parked_bytes, parked, "parked_bytes")
        granted = sum(usable for _, usable, _ in live)
        expect_equal(stats.current_bytes + parked, granted, "current and parked bytes")
        requested = sum(a.requested(self.page_size) for a in self.live.values())
        expect_equal(heap.requested_bytes, requested, "requested_bytes")

    def verify_slabs(self, live: list[tuple[int, int, str]]) -> None:
        slabs = self.heap.slabs()
        for slab in slabs:
            objects = len(slab.objects()) + slab.free_count + slab.remote_free_count
            expect_equal(objects, slab.capacity, "live and free objects of a slab")
        objects = sorted(address for slab in slabs for address in slab.objects())
        expected = sorted(address for address, usable, _ in live if usable < self.page_size)
        expect_equal(objects, expected, "the live objects of all slabs")

    def drain(self) -> None:
        bsa.set_cpu(0)
        self.limit(None)
        for handle in reversed(self.handles()):
            if self.live[handle].block is None:
                self.heap.free(self.live[handle].address)
                self.forget(handle)
            else:
                self.drop(handle)
        self.verify()
        self.expect_all_free()

    def close(self) -> None:
        for allocation in self.live.values():
            while allocation.views:
                allocation.views.pop().release()
        self.live.clear()
        OnBsa.close(self)
