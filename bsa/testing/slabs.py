"""Requests for anything, from several slots: each address is predicted, and the counts of slabs."""

import bsa

from .exerciser import ProgramError, expect, expect_equal
from .models import Place, SectionModel, SlabModel
from .on_bsa import OnBsa


class SlabExerciser(OnBsa):
    """Raw addresses against SlabModel."""

    step_names = frozenset(
        "cpu extend remove_section malloc realloc free free_like trim double_free"
        " free_between".split()
    )

    def open(self) -> None:
        self.model = SlabModel(self.heap.page_size, self.heap.cpus)
        self.models: list[SectionModel] = []  # of each piece
        self.live: dict[int, Place] = {}
        self.freed: dict[int, int] = {}  # addresses
        super().open()

    # --- places and addresses

    def address_of(self, place: Place) -> int:
        where, index = place
        if isinstance(where, SectionModel):
            start = self.pieces[self.models.index(where)].section.start
            return start + index * int(self.page_size)
        return self.address_of(where.block) + index * where.stride

    def handles(self) -> list[int]:
        return list(self.live)

    def find(self, handle: int) -> Place:
        if handle not in self.live:
            raise ProgramError(f"handle {handle} is not live")
        return self.live[handle]

    def freed_handles(self) -> list[int]:
        """Of what was freed, and where nothing else has come to live since."""
        live = {self.address_of(place) for place in self.live.values()}
        return [h for h, address in self.freed.items() if address not in live]

    # --- slots and sections

    def extend(self, offset: int, size: int, physical: int | None = None) -> None:
        super().extend(offset, size, physical)
        section = self.pieces[-1].section
        self.models.append(self.model.pages.add(self.first_page(section), section.total_pages))

    def remove_section(self, index: int) -> None:
        """Remove a section; one in use must refuse, but has been trimmed."""
        section = self.piece(index).section
        self.model.trim()
        if self.models[index].live:
            self.heap.trim()
            self.refused(bsa.InUseError, self.heap.remove_region, section)
        else:
            self.remove(index)
            self.model.pages.sections.remove(self.models.pop(index))
            self.freed.clear()

    # --- requests

    def malloc(self, size: int, align: int | None = None, times: int = 1) -> None:
        """The same request `times` times. Each has a handle of its own, also where it fails."""
        for _ in range(times):
            self.malloc_as(self.new_handle(), size, align)

    def malloc_as(self, handle: int, size: int, align: int | None) -> None:
        if not self.has_slot:
            self.refused(bsa.InvalidParamError, self.heap.malloc, size, align)
            return
        place = self.model.alloc(bsa.current_cpu(), size, align or 0)
        if place is None:
            self.heap.trim()  # which the model has done, too
            self.refused(bsa.OutOfMemoryError, self.heap.malloc, size, align)
        else:
            address = self.heap.malloc(size, align)
            expect_equal(address, self.address_of(place), "the address")
            self.live[handle] = place

    def realloc(self, handle: int, size: int) -> None:
        place = self.find(handle)
        address, cpu = self.address_of(place), bsa.current_cpu()
        if not self.has_slot:
            return self.refused(bsa.InvalidParamError, self.heap.realloc, address, size)
        new = self.model.resize(cpu, place, size)
        if new is None:
            self.heap.trim()
            self.refused(bsa.OutOfMemoryError, self.heap.realloc, address, size)
        else:
            moved = self.heap.realloc(address, size)
            expect_equal(moved, self.address_of(new), "the address")
            self.live[handle] = new
        return None

    def free(self, handle: int) -> None:
        """Free, and once more, which must be refused."""
        self.free_once(handle)
        self.double_free(handle)

    def free_once(self, handle: int) -> None:
        address = self.address_of(self.find(handle))
        self.heap.free(address)
        self.model.free(bsa.current_cpu(), self.live.pop(handle))
        self.freed[handle] = address

    def free_like(self, handle: int, every: int) -> None:
        """Free each `every`-th allocation of the same size, from this handle on."""
        usable = self.model.usable_size(self.find(handle))
        like = [
            other
            for other, place in self.live.items()
            if other >= handle and self.model.usable_size(place) == usable
        ]
        for other in like[::every]:
            self.free_once(other)

    def trim(self) -> None:
        free = self.heap.free_pages
        self.model.trim()
        expect_equal(self.heap.trim(), self.heap.free_pages - free, "trim()")

    # --- misuse

    def double_free(self, handle: int) -> None:
        """Free what was freed, and where nothing else lives by now."""
        if handle not in self.freed_handles():
            raise ProgramError(f"handle {handle} was not freed, or something else lives there")
        # Of the second kind if its slab went with it, and it was at no page's start.
        errors = (bsa.NotAllocatedError, bsa.InvalidParamError)
        self.refused(errors, self.heap.free, self.freed[handle])

    def free_between(self, handle: int, more: int) -> None:
        """Free an address inside an allocation."""
        place = self.find(handle)
        inside = 1 + more % (self.model.usable_size(place) - 1)
        errors = (bsa.NotAllocatedError, bsa.InvalidParamError)
        self.refused(errors, self.heap.free, self.address_of(place) + inside)

    # --- what always holds

    def verify(self) -> None:
        super().verify()
        heap, model = self.heap, self.model
        expect_equal(heap.free_blocks(), model.pages.free_blocks(), "free_blocks()")
        seen = sorted(
            (slab.base, slab.size, slab.cpu, slab.state, slab.free_count, slab.remote_free_count)
            for slab in heap.slabs()
        )
        expected = sorted((self.address_of(b), *counts) for b, *counts in model.slab_counts())
        for slab, model_slab in zip(seen, expected):
            expect_equal(slab, model_slab, "a slab (base, size, slot, state, free, remote)")
        expect_equal(len(seen), len(expected), "the number of slabs")
        live = sorted((self.address_of(p), model.usable_size(p)) for p in self.live.values())
        walked = sorted((address, usable) for address, usable, _ in heap.walk())
        expect_equal(walked, live, "the walk")
        expect_equal(len(heap), len(live), "the number of live allocations")

    def drain(self) -> None:
        bsa.set_cpu(0)
        for handle in reversed(list(self.live)):
            self.free_once(handle)
        self.verify()
        self.model.trim()
        self.expect_all_free()
        expect(not self.heap.slabs(), "slabs are left after a trim() of an empty heap")
