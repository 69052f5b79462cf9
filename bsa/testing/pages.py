"""Requests for pages only: each is predicted, and so is every free list after each step."""

from collections.abc import Callable
from typing import Any

import bsa

from .exerciser import ProgramError, expect, expect_equal
from .models import BuddyModel, PageBlock, SectionModel, size_classes
from .on_bsa import OnBsa


class LivePages:
    """A live block of pages, owned by a Block or raw, and where the model has it."""

    def __init__(self, held: bsa.Block | int, place: PageBlock) -> None:
        self.held, self.place = held, place

    @property
    def is_raw(self) -> bool:
        return isinstance(self.held, int)

    @property
    def address(self) -> int:
        return self.held if isinstance(self.held, int) else self.held.address

    @property
    def pages(self) -> int:
        section, head = self.place
        return section.live[head]


class PageExerciser(OnBsa):
    """Requests for pages against BuddyModel."""

    step_names = frozenset(
        "extend remove_section alloc_pages malloc resize detach adopt free drop dealloc"
        " misuse".split()
    )

    def open(self) -> None:
        self.model = BuddyModel(self.heap.page_size)
        self.models: list[SectionModel] = []  # of each piece
        self.live: dict[int, LivePages] = {}
        super().open()

    def close(self) -> None:
        self.live.clear()
        super().close()

    def handles(self) -> list[int]:
        return list(self.live)

    def raw_handles(self) -> list[int]:
        return [handle for handle, live in self.live.items() if live.is_raw]

    def owned_handles(self) -> list[int]:
        return [handle for handle, live in self.live.items() if not live.is_raw]

    def find(self, handle: int, raw: bool | None = None) -> LivePages:
        if handle not in self.live or raw not in (None, self.live[handle].is_raw):
            raise ProgramError(f"handle {handle} is not live, or not of the kind that is needed")
        return self.live[handle]

    # --- sections

    def extend(self, offset: int, size: int, physical: int | None = None) -> None:
        super().extend(offset, size, physical)
        section = self.pieces[-1].section
        self.models.append(self.model.add(self.first_page(section), section.total_pages))

    def remove_section(self, index: int) -> None:
        """Remove a section; one in use must refuse."""
        section = self.piece(index).section
        if self.models[index].live:
            self.refused(bsa.InUseError, self.heap.remove_region, section)
        else:
            self.remove(index)
            self.model.sections.remove(self.models.pop(index))

    # --- requests

    def request(
        self, place: PageBlock | None, function: Callable[..., Any], *arguments: Any, **options: Any
    ) -> Any:
        """What the allocator gives, where the model has come to `place`, or has failed (None)."""
        if place is not None:
            return function(*arguments, **options)
        self.refused(bsa.OutOfMemoryError, function, *arguments, **options)
        return None

    def keep(self, held: Any, place: PageBlock | None) -> None:
        """Remember what a request has given."""
        handle = self.new_handle()
        if place is not None:
            expect(isinstance(held, (int, bsa.Block)), f"got {held!r}, no address and no Block")
            self.live[handle] = LivePages(held, place)
            self.expect_place(self.live[handle])

    def expect_place(self, live: LivePages) -> None:
        section, head = live.place
        start = self.pieces[self.models.index(section)].section.start
        expect_equal(live.address, start + head * self.page_size, "the address")

    def alloc_pages(self, count: int, align: int | None = None, exact: bool = False) -> None:
        place = self.model.take(count, align or 0, exact)
        self.keep(self.request(place, self.heap.alloc_pages, count, align, exact=exact), place)

    def malloc(self, size: int, align: int | None = None) -> None:
        """Ask for so many bytes that pages serve them."""
        self.expect_pages(size)
        place = self.model.take(self.model.pages_for(size), align or 0)
        self.keep(self.request(place, self.heap.malloc, size, align), place)

    def expect_pages(self, size: int) -> None:
        if size <= size_classes(self.page_size)[-1]:
            raise ProgramError(f"{size} bytes would be served by an object")

    def resize(self, handle: int, size: int) -> None:
        self.expect_pages(size)
        live = self.find(handle)
        place = self.model.resize(live.place, size)
        if isinstance(live.held, int):
            moved = self.request(place, self.heap.realloc, live.held, size)
            live.held = live.held if moved is None else moved
        else:
            self.request(place, self.call, "Block.resize()", live.held.resize, size)
        live.place = place or live.place
        self.expect_place(live)

    # --- owners

    def detach(self, handle: int) -> None:
        live = self.find(handle, raw=False)
        live.held = self.call("Block.detach()", live.held.detach)  # type: ignore[union-attr]
        self.expect_place(live)

    def adopt(self, handle: int) -> None:
        """Take a raw block into a Block."""
        live = self.find(handle, raw=True)
        live.held = self.heap.block(live.held)
        self.expect_place(live)

    # --- giving back

    def forget(self, handle: int) -> None:
        section, head = self.live.pop(handle).place
        section.release(head)

    def free(self, handle: int) -> None:
        """Free a block, raw or not, and once more, which must be refused."""
        held = self.find(handle).held
        free = self.heap.free if isinstance(held, int) else lambda block: block.free()
        self.call("free()", free, held)
        self.forget(handle)
        self.refused(bsa.NotAllocatedError, free, held)

    def drop(self, handle: int) -> None:
        """Let go of a Block, which frees it."""
        self.find(handle, raw=False)
        self.forget(handle)

    def dealloc(self, handle: int) -> None:
        """Free a raw block by its number of pages."""
        live = self.find(handle, raw=True)
        self.heap.dealloc_pages(live.held, live.pages)
        self.forget(handle)

    def misuse(self, handle: int, more: int) -> None:
        """Frees of an interior page, of an unaligned address, and by a wrong number of pages."""
        live = self.find(handle, raw=True)
        heap, address, pages = self.heap, live.address, live.pages
        for count in (0, pages + 1 + more):
            self.refused(bsa.InvalidParamError, heap.dealloc_pages, address, count)
        unaligned = address + 1 + more % (self.page_size - 1)
        self.refused(bsa.InvalidParamError, heap.free, unaligned)
        self.refused(bsa.InvalidParamError, heap.dealloc_pages, unaligned, 1)
        if pages > 1:
            inner = address + (1 + more % (pages - 1)) * self.page_size
            for free in (heap.free, lambda page: heap.dealloc_pages(page, 1)):
                self.refused(bsa.NotAllocatedError, free, inner)

    # --- what always holds

    def verify(self) -> None:
        super().verify()
        for piece, model in zip(self.pieces, self.models):
            for order, heads in enumerate(model.free):
                expected = tuple(
                    piece.section.start + head * self.page_size for head in reversed(heads)
                )
                seen = piece.section.free_list(order)
                expect_equal(seen, expected, f"the free list of order {order}")
        for live in self.live.values():
            usable = self.heap.usable_size(live.address)
            expect_equal(usable, live.pages * self.page_size, "usable_size()")
        expect_equal(len(self.heap), len(self.live), "the number of live allocations")
        expect_equal(self.heap.free_blocks(), self.model.free_blocks(), "free_blocks()")

    def drain(self) -> None:
        while self.live:
            handle = max(self.live)
            if self.live[handle].is_raw:
                self.heap.free(self.live[handle].address)
            self.forget(handle)
        self.verify()
        self.expect_all_free()
