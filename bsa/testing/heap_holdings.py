"""What is live in a bsa.Allocator, Blocks and parked bytes included, and the sums that follow from it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import bsa

from . import models
from .exerciser import ProgramError, blame, expect_equal
from .memory import peek, poke
from .nested import LEAST_ROOM, NestedHeap
from .on_bsa import OnBsa
from .raw import Allocation, RawExerciser


class HeapAllocation(Allocation):
    """A live or parked allocation; `block` is None while it is a raw address."""

    def __init__(self, address: int, size: int, usable: int) -> None:
        super().__init__(address, size, usable)
        self.asked = size  # of the core, which for pages remembers it
        self.block: bsa.Block | None = None
        self.views: list[memoryview | NestedHeap] = []
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


class HeapHoldings(OnBsa, RawExerciser):
    """Knows what a bsa.Allocator holds, and checks it after each step."""

    # --- what there is

    def open(self) -> None:
        RawExerciser.open(self)
        self.peaks = (0, 0)  # the most that was held: bytes, allocations
        self.failures = 0  # requests that were refused, each try of them
        OnBsa.open(self)

    def capabilities(self) -> dict[str, Any]:
        names = "has_alignment has_zero has_realloc has_usable_size has_bulk has_close has_blocks"
        names += " has_pages has_cpus has_sections has_limit has_on_oom detects_double_free"
        names += " detects_interior_free detects_foreign_free merges"
        return {**dict.fromkeys(names.split(), True), **self.flags}

    # --- handles

    def raw_handles(self) -> list[int]:
        return [h for h, allocation in self.live.items() if allocation.block is None]

    def block_handles(self) -> list[int]:
        """Handles of live Blocks."""
        return [h for h, allocation in self.live.items() if allocation.is_live_block]

    def owned_handles(self) -> list[int]:
        """Handles of Blocks, live or parked."""
        return [h for h, allocation in self.live.items() if allocation.block is not None]

    def roomy_handles(self) -> list[int]:
        """Handles of live Blocks that have room for a heap."""
        return [h for h in self.block_handles() if self.live[h].size >= LEAST_ROOM]

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

    def held(self) -> tuple[int, int]:
        """Bytes that are not free, in how many allocations."""
        lengths = [length for _, length in self.extents()]
        return sum(lengths), len(lengths)

    def note_peaks(self, more: int = 0) -> None:
        """What is held now, and for a moment another allocation of `more` bytes."""
        nbytes, count = self.held()
        most_bytes, most_count = self.peaks
        self.peaks = max(most_bytes, nbytes + more), max(most_count, count + bool(more))

    def reset_peak(self) -> None:
        self.heap.reset_peak()
        self.peaks = self.held()

    def find_block(self, handle: int) -> tuple[Any, bsa.Block]:
        allocation = self.find(handle)
        if allocation.block is None:
            raise ProgramError(f"handle {handle} is no Block")
        return allocation, allocation.block

    def find_live_block(self, handle: int) -> tuple[Any, bsa.Block]:
        allocation, block = self.find_block(handle)
        if allocation.is_parked:
            raise ProgramError(f"handle {handle} is parked")
        return allocation, block

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
        self.note_peaks()
        peaks = stats.peak_bytes, stats.peak_count
        expect_equal(peaks, self.peaks, "the peaks of bytes and of allocations")
        expect_equal(stats.failures, self.failures, "failures")
        objects = Counter(usable for _, usable, _ in live if usable < self.page_size)
        counted = {size: count for size, count, _ in stats.per_class if count}
        expect_equal(counted, objects, "the live objects of each class")

    def verify_slabs(self, live: list[tuple[int, int, str]]) -> None:
        slabs = self.heap.slabs()
        for slab in slabs:
            objects = len(slab.objects()) + slab.free_count + slab.remote_free_count
            expect_equal(objects, slab.capacity, "live and free objects of a slab")
        objects = sorted(address for slab in slabs for address in slab.objects())
        expected = sorted(address for address, usable, _ in live if usable < self.page_size)
        expect_equal(objects, expected, "the live objects of all slabs")
        pages = sum(usable for _, usable, _ in live if usable >= self.page_size)
        pages += sum(slab.nbytes for slab in slabs)
        expect_equal(self.heap.allocated_bytes, pages, "allocated_bytes, of page blocks and slabs,")
