"""Requests to a bsa.Allocator, which may fail only if nothing free could have held them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import bsa

from . import models
from .exerciser import ProgramError, blame, expect, expect_equal
from .heap_holdings import HeapAllocation, HeapHoldings
from .on_oom import OnOom, Request

LOW_END = 1 << 32  # what alloc_pages_lowmem() gives ends at or below, as a physical address


class HeapRequests(HeapHoldings):
    """Asks for Blocks and addresses, and for other sizes of them."""

    def open(self) -> None:
        self.under_way: Request | None = None
        self.asks_on_oom = False
        super().open()

    # --- liveness

    @property
    def largest_block(self) -> int:
        """Bytes that any heap could ever give at once."""
        return int(self.page_size) << models.MAX_ORDER

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
        if granted <= self.largest_block:
            self.expect_trimmed()
        if not self.is_object(size, align):
            expect(not self.fits(granted, align), f"{size} bytes were refused, and would fit")
            return
        expect(not self.fits(self.page_size, 0), f"{size} bytes were refused, a page is free")
        for slab in self.heap.slabs():
            if slab.size == granted and slab.cpu == bsa.current_cpu():
                free = slab.free_count + slab.remote_free_count
                expect_equal(free, 0, f"{size} bytes were refused; the number of free objects")

    def expect_trimmed(self) -> None:
        """No remote free waits, and no slab is empty."""
        for slab in self.heap.slabs():
            expect(slab.objects() and not slab.remote_free_count, "an empty slab was left")

    # --- requests, and on_oom

    def attempt(
        self, nbytes: int, ask: Callable[[], Any], expect_refused: Callable[[], None]
    ) -> Any:
        """As for any allocator; but a thread without a slot is refused everything."""
        if not self.has_slot:
            self.refused(bsa.InvalidParamError, ask)
            return None
        return self.ask(nbytes, ask, expect_refused)

    def ask(
        self,
        nbytes: int,
        ask: Callable[[], Any],
        expect_refused: Callable[[], None],
        busy: int | None = None,
    ) -> Any:
        """What ask() gives, or None; each try that fails must put `nbytes` before on_oom.

        busy: the handle of what is being resized.
        """
        given, request = None, Request(nbytes, expect_refused, busy)
        self.under_way = request
        try:
            given = ask()
        except request.error as error:
            self.forgive(error)
        finally:
            self.under_way = None
        if request.times_asked:
            expect_equal(
                given is not None,
                request.may_go_on,
                "whether it was served, after on_oom's answer,",
            )
        elif given is None:
            is_asked = self.asks_on_oom and nbytes <= self.largest_block
            expect(not is_asked, "on_oom was not asked")
            self.failed(request)
        return given

    def failed(self, request: Request) -> None:
        """A try has failed."""
        self.failures += 1
        request.expect_refused()

    def ask_for_too_much(self) -> None:
        """What must fail does, also within on_oom."""
        self.heap.trim()  # or it might get what the attempt gives back
        too_much = 2 * self.heap.largest_free or self.page_size
        self.raises(bsa.OutOfMemoryError, self.heap.malloc, too_much)
        self.failures += 1

    def on_oom(self, answer: str | None = None) -> None:
        """Set on_oom to what answers so (see ANSWERS), or to nothing."""
        callback = None if answer is None else OnOom(self, answer)
        self.heap.on_oom, self.asks_on_oom = callback, callback is not None
        expect(self.heap.wrapped.on_oom is callback, "on_oom is not what it was set to")

    # --- new allocations

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
        block = self.attempt(
            size,
            lambda: self.heap.alloc_pages(count, align, exact=exact),
            partial(self.expect_out_of_memory, needed, align),
        )
        if block is not None:
            self.keep_block(handle, block, size, align, usable=size if exact else needed)

    def alloc_pages_lowmem(self, count: int) -> None:
        handle, size = self.new_handle(), count * self.page_size
        needed = self.page_size << models.order_of(count)
        block = self.attempt(
            size,
            lambda: self.heap.alloc_pages_lowmem(count),
            lambda: expect(
                not self.fits(needed, 0, self.is_low), f"{count} low pages were to be had"
            ),
        )
        if block is not None:
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
        addresses = self.attempt(
            count * size,
            lambda: self.heap.malloc_many(count, size),
            partial(self.expect_too_many, count, size),
        )
        if addresses is not None:
            expect_equal(len(addresses), count, "the number of addresses")
            for handle, address in zip(handles, addresses):
                self.live[handle] = self.new_allocation(address, size, None)

    def expect_too_many(self, count: int, size: int) -> None:
        """So many cannot be had one by one either."""
        taken: list[int] = []
        try:
            while len(taken) < count:
                taken.append(self.heap.malloc(size))
        except bsa.OutOfMemoryError as error:
            self.forgive(error)
            self.failures += 1
        self.heap.free_many(taken)
        expect(len(taken) < count, f"{count} times {size} bytes were refused, and could be had")
        self.reset_peak()  # how far it has come nobody can know

    # --- other sizes

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
            address = self.ask(
                size,
                partial(resize, allocation, size),
                partial(self.expect_too_large, allocation, size),
                handle,
            )
            if address is not None:
                self.resized(handle, address, size)

    def expect_too_large(self, allocation: HeapAllocation, size: int) -> None:
        """It has to move, for which there is no room. One that shrinks can stay where it is."""
        expect(size > allocation.usable, f"{size} of {allocation.usable} bytes were refused")
        self.expect_out_of_memory(size, None)

    def resize_raw(self, allocation: HeapAllocation, size: int) -> Any:
        return self.heap.realloc(allocation.address, size)

    def resize_block(self, allocation: HeapAllocation, size: int) -> int:
        block = allocation.block
        assert block is not None
        self.call("Block.resize()", block.resize, size)
        expect_equal((block.size, len(block)), (size, size), "size and length of the Block")
        return block.address

    def resized(self, handle: int, address: int, size: int) -> None:
        usable = self.heap.usable_size(address)
        allocation = self.live[handle]
        if address != allocation.address:
            self.note_peaks(usable)  # for a moment it is in two places
        del self.live[handle]  # what it has come to may overlap what it was
        kept = min(allocation.size, size)
        if allocation.is_exported and address != allocation.address:
            allocation.older.append((allocation.address, allocation.usable))
            allocation.is_exported = False
        allocation.address, allocation.size, allocation.asked = address, size, size
        allocation.usable = usable
        expect(allocation.usable >= size, f"{size} bytes have become {allocation.usable}")
        self.expect_sound(allocation, None)
        if self.read(address, kept) != allocation.bytes[:kept]:
            blame(f"{kept} bytes at {address:#x} were to be the same as before")
        self.live[handle] = allocation
        self.fill(allocation)
