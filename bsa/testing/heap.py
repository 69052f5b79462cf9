"""All that a bsa.Allocator can do, Blocks, views, slots and sections included.

What is predicted is what holds for any policy: who is live, how large, and whether a request may
fail. PageExerciser and SlabExerciser predict the rest.
"""

from typing import Any

import bsa

from .exerciser import ProgramError, expect, expect_equal
from .heap_misuse import HeapMisuse
from .heap_requests import HeapRequests
from .nested import NestedHeap
from .on_bsa import OnBsa

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


class HeapExerciser(HeapRequests, HeapMisuse):
    """A bsa.Allocator, or one of a class derived from it."""

    step_names = HeapRequests.step_names | frozenset(
        "cpu extend remove_section trim limit alloc alloc_from alloc_pages alloc_pages_lowmem"
        " resize detach adopt export release_view free_block drop dealloc free_pages_wrongly"
        " free_many_wrongly free_inside_freed take_from_block wrong_call reset_peak on_oom nest".split()
    )

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
        self.expect_trimmed()

    # --- changing hands

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

    def nest(self, handle: int, size: int) -> None:
        """Make a heap of a Block's memory, and take `size` bytes again and again. A view like any other.

        A second one must be refused.
        """
        allocation, block = self.find_live_block(handle)
        if handle not in self.roomy_handles():
            raise ProgramError(f"handle {handle} has no room for a heap")
        if any(isinstance(view, NestedHeap) for view in allocation.views):
            self.refused(bsa.MemoryOverlapError, self.call, "Allocator()", bsa.Allocator, block)
        else:
            allocation.views.append(NestedHeap(self, block, size))
            allocation.is_exported = True
            allocation.bytes = self.read(allocation.address, allocation.usable)

    def release_view(self, handle: int) -> None:
        """Release the view, or close the heap, that was made last."""
        allocation = self.find(handle)
        if not allocation.views:
            raise ProgramError(f"handle {handle} has no views")
        view = allocation.views.pop()
        self.call("release()", view.release)
        if isinstance(view, NestedHeap):
            self.fill(allocation)  # it has left something else there

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

    def let_go(self, handle: int) -> None:
        """Free what it is, whoever owns it."""
        if self.live[handle].block is None:
            self.heap.free(self.live[handle].address)
            self.forget(handle)
        else:
            self.drop(handle)

    def dealloc(self, handle: int) -> None:
        """Free raw pages by their number."""
        allocation = self.find_raw(handle)
        self.heap.dealloc_pages(allocation.address, allocation.usable // self.page_size)
        self.forget(handle)

    # --- closing

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

    def drain(self) -> None:
        bsa.set_cpu(0)
        self.limit(None)
        for handle in reversed(self.handles()):
            self.let_go(handle)
        self.verify()
        self.expect_all_free()

    def close(self) -> None:
        try:
            for allocation in self.live.values():
                while allocation.views:
                    allocation.views.pop().release()
        finally:
            self.live.clear()
            OnBsa.close(self)
