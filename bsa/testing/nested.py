"""A heap inside a Block of another heap."""

import bsa

from .exerciser import Exerciser, Watched, expect, expect_equal
from .memory import poke

PAGE_SIZE = 256
LEAST_ROOM = 8192  # bytes of a Block that has room for a heap
MOST_TAKEN = 40  # allocations


class NestedHeap:
    """An allocator over a Block, with live allocations. Until its release it is a view of the Block."""

    def __init__(self, exerciser: Exerciser, block: bsa.Block, size: int) -> None:
        """Take what there is room for of `size` bytes, but not too often, and write to all of it."""
        options = {"page_size": PAGE_SIZE, "cpus": bsa.current_cpu() + 1}
        made = exerciser.call("Allocator()", bsa.Allocator, block, **options)
        heap = self.heap = Watched(made, exerciser.call)
        pages = heap.free_pages * PAGE_SIZE // max(size, 1)
        self.taken = [heap.malloc(size) for _ in range(min(pages // 2, MOST_TAKEN))]
        for address in self.taken:
            usable = heap.usable_size(address)
            end = block.address + block.size
            expect(
                block.address <= address and address + usable <= end,
                "a nested heap leaves its Block",
            )
            poke(address, b"\xa5" * usable)

    def release(self) -> None:
        """Give everything back, and close."""
        heap = self.heap
        heap.check()
        heap.free_many(self.taken)
        heap.trim()
        expect_equal(heap.free_pages, heap.total_pages, "free pages of a nested heap that is empty")
        heap.close()
