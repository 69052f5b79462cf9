"""What a bsa.Allocator must refuse: wrong addresses, wrong arguments, memory that a Block owns."""

from typing import Any

import bsa

from . import models
from .exerciser import ProgramError, expect
from .heap_holdings import HeapHoldings

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


class HeapMisuse(HeapHoldings):
    """Calls that are refused, and change nothing."""

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
