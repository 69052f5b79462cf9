"""What the exercisers of bsa share: regions of memory at known places, and sums that must agree."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import bsa

from . import models
from .exerciser import Exerciser, ProgramError, expect_equal
from .memory import BASE, Ground


class Piece(NamedTuple):
    """Memory under management, and who holds it."""

    ground: Ground
    section: bsa.Section
    physical: int | None  # address of the region's first byte; None: as virtual


class OnBsa(Exerciser):
    """Runs on a bsa.Allocator, to which it gives regions of its own."""

    can: Mapping[str, Any] = {"has_sections": True}

    def begin(self) -> None:
        self._pin_before = bsa.set_cpu(0)
        super().begin()

    def open(self) -> None:
        self.page_size = self.heap.page_size
        self.pieces: list[Piece] = []
        for region in self.setup.get("regions", ()):
            self.extend(*region)

    def close(self) -> None:
        bsa.set_cpu(self._pin_before)
        self.heap.close()
        for piece in self.pieces:
            piece.ground.give_back()
        self.pieces.clear()

    def _step(self, name: str, arguments: Sequence[Any]) -> Callable[[], None]:
        if name not in ("extend", "cpu") and not self.pieces and not self.heap.sections:
            raise ProgramError('the allocator has no memory: "setup" has no "regions"')
        return super()._step(name, arguments)

    # --- slots and sections

    def cpu(self, number: int) -> None:
        """Go on as a thread of another slot, which the allocator need not have."""
        bsa.set_cpu(number)

    @property
    def has_slot(self) -> bool:
        return bsa.current_cpu() < int(self.heap.cpus)

    def extend(self, offset: int, size: int, physical: int | None = None) -> None:
        """Add a region of `size` bytes, `offset` bytes after a multiple of a large power of two."""
        ground = Ground(offset, size)
        section = self.heap.add_region(ground.region, phys=physical)
        self.pieces.append(Piece(ground, section, physical))
        self.refused(bsa.MemoryOverlapError, self.heap.add_region, ground.region[-1:])

    def piece(self, index: int) -> Piece:
        if not 0 <= index < len(self.pieces):
            raise ProgramError(f"there is no section {index}")
        return self.pieces[index]

    def remove(self, index: int) -> None:
        """Remove a section that is not in use, and may go."""
        piece = self.piece(index)
        self.heap.remove_region(piece.section)
        del self.pieces[index]
        piece.ground.give_back()

    def first_page(self, section: bsa.Section) -> int:
        """The number of a section's first page, as the models reckon."""
        return section.start % BASE // int(self.page_size)

    # --- what a refusal leaves alone

    def state(self) -> dict[str, object]:
        """All that can be seen of a heap, but for the count of failures.

        And but for the list of a slab that is full: it need not be the current one any more after a
        request that failed.
        """
        heap, stats = self.heap, self.heap.stats()
        return {
            "walk": list(heap.walk()),
            "free blocks": heap.free_blocks(),
            "stats": [getattr(stats, n) for n in type(stats).__match_args__ if n != "failures"],
            "requested": heap.requested_bytes,
            "sections": [(s.start, s.page_states(), s.free_blocks()) for s in heap.sections],
            "slabs": [(slab.base, slab.bitmap) for slab in heap.slabs()],
        }

    # --- sums

    def verify(self) -> None:
        heap = self.heap
        heap.check()
        blocks = heap.free_blocks()
        pages = sum(count << order for order, count in enumerate(blocks))
        expect_equal(heap.free_pages, pages, "free_pages, of the blocks that free_blocks() counts,")
        free = pages * self.page_size
        expect_equal(free + heap.allocated_bytes, heap.managed_bytes, "free and allocated bytes")
        order = len(self.steps) % (models.MAX_ORDER + 1)  # another one after each step
        unusable, extfrag = heap.unusable_index(order), heap.extfrag_index(order)
        expect_equal(unusable, models.unusable_index(blocks, order), f"unusable_index({order})")
        expect_equal(extfrag, models.extfrag_index(blocks, order), f"extfrag_index({order})")

    def expect_all_free(self) -> None:
        """After everything was given back: merged as at the start."""
        heap = self.heap
        heap.trim()
        expect_equal(len(heap), 0, "the number of live allocations")
        for section in heap.sections:
            fresh = models.SectionModel(section.start // self.page_size, section.total_pages)
            expect_equal(
                section.free_blocks(),
                tuple(len(heads) for heads in fresh.free),
                "free blocks of a section where nothing is live",
            )
        heap.check()
