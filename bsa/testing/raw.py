"""Any allocator that gives addresses: what holds whatever its policy.

Of an allocator only `malloc` and `free` are needed; whatever else it has is used (see
docs/testing.md). The memory of each live allocation is filled with a pattern of its own.
"""

import ctypes
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from .exerciser import Errors, Exerciser, ProgramError, blame, expect, expect_equal
from .memory import peek, poke


class Allocation:
    """A live allocation, and the bytes it is filled with."""

    def __init__(self, address: int, size: int, usable: int) -> None:
        self.address, self.size, self.usable = address, size, usable
        self.bytes = b""

    @property
    def end(self) -> int:
        """Even an empty allocation has an address that is its own."""
        return self.address + max(self.usable, 1)


def parameters(function: Any) -> Mapping[str, Any]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


class RawExerciser(Exerciser):
    """Addresses from any allocator."""

    step_names = frozenset(
        "malloc malloc_many free free_many realloc usable_size reopen double_free free_inside"
        " free_foreign".split()
    )

    def open(self) -> None:
        self.can = self.capabilities()
        self.live: dict[int, Any] = {}  # Allocations
        self.freed: dict[int, tuple[int, int]] = {}  # (address, bytes) that it had
        self.tag = 0
        self.largest = 0  # bytes of the largest request that was served
        self.was_asked = self.has_served = False

    def capabilities(self) -> dict[str, Any]:
        """What the allocator has and promises: as found, or as the machine says."""
        known = self.heap.wrapped
        for name in ("malloc", "free"):
            expect(hasattr(known, name), f"{known!r} has no method {name}()")
        malloc = parameters(known.malloc)
        found = {
            "has_alignment": "align" in malloc,
            "has_zero": "zero" in malloc,
            "has_realloc": hasattr(known, "realloc"),
            "has_usable_size": hasattr(known, "usable_size"),
            "has_bulk": hasattr(known, "malloc_many") and hasattr(known, "free_many"),
            "has_close": hasattr(known, "close"),
            "detects_double_free": False,
            "detects_interior_free": False,
            "detects_foreign_free": False,
            "default_alignment": 1,
            "merges": True,
        }
        return {**found, **self.flags}

    # --- handles

    def handles(self) -> list[int]:
        return list(self.live)

    def raw_handles(self) -> list[int]:
        """Handles of what can be freed by its address."""
        return list(self.live)

    def handles_with_inside(self) -> list[int]:
        return [h for h, allocation in self.live.items() if allocation.usable > 1]

    def freed_handles(self) -> list[int]:
        """Of what was freed, and where nothing else starts by now."""
        live = {allocation.address for allocation in self.live.values()}
        return [h for h, (address, _) in self.freed.items() if address not in live]

    def used_sizes(self) -> list[int]:
        """Bytes of the few that were freed last, and of the few live ones that came last."""
        freed = [size for _, size in list(self.freed.values())[-4:]]
        live = list(self.live.values())[-4:]
        return freed + [size for a in live for size in (a.size, a.usable)]

    def find(self, handle: int) -> Any:
        if handle not in self.live:
            raise ProgramError(f"handle {handle} is not live")
        return self.live[handle]

    def find_raw(self, handle: int) -> Any:
        if handle not in self.raw_handles():
            raise ProgramError(f"handle {handle} is no live address")
        return self.live[handle]

    # --- memory

    def read(self, address: int, size: int) -> bytes:
        if hasattr(self.heap.wrapped, "read"):
            return bytes(self.heap.read(address, size))
        return peek(address, size)

    def write(self, address: int, data: bytes) -> None:
        if hasattr(self.heap.wrapped, "write"):
            self.heap.write(address, data)
        else:
            poke(address, data)

    def fill(self, allocation: Allocation) -> None:
        """With a pattern that no other allocation has, and no byte of which is zero."""
        self.tag += 1
        size = allocation.usable
        pattern = bytes(1 + self.tag // 255**digit % 255 for digit in range(3))
        allocation.bytes = (pattern * (size // 3 + 1))[:size]
        self.write(allocation.address, allocation.bytes)

    def regions(self) -> Iterable[tuple[int, int]] | None:
        """(start, bytes) of the memory that it says is its own; None: it does not say."""
        known = getattr(self.heap.wrapped, "regions", None)
        return self.heap.regions() if callable(known) else known

    def granted(self, size: int, align: int | None) -> int:
        """Bytes that may be used of a new allocation. More than was asked for is left alone."""
        return size

    def least_alignment(self, size: int, align: int | None) -> int:
        return max(align or 1, int(self.can["default_alignment"]))

    def expect_sound(self, allocation: Allocation, align: int | None) -> None:
        """Whether memory for a request is aligned, the allocator's own, and nobody else's."""
        address, size = allocation.address, allocation.size
        least = self.least_alignment(size, align)
        expect(address % least == 0, f"{address:#x} is no multiple of {least}")
        self.expect_inside(address, max(allocation.usable, 1), f"{size} bytes")
        self.expect_alone(address, allocation.usable, f"{allocation.usable} bytes")

    def expect_inside(self, address: int, size: int, what: str) -> None:
        regions = self.regions()
        if regions is not None and not any(
            start <= address and address + size <= start + length for start, length in regions
        ):
            blame(f"{what} at {address:#x} are not within the allocator's memory")

    def expect_alone(self, address: int, size: int, what: str, itself: int = -1) -> None:
        """No live allocation is there, but for that of the handle `itself`."""
        end = address + max(size, 1)
        for handle, other in self.live.items():
            if handle != itself and address < other.end and other.address < end:
                counts = "" if size and other.usable else " (0 bytes count as 1)"
                blame(
                    f"{what} at {address:#x} overlap the"
                    f" {other.usable} bytes at {other.address:#x} of handle {handle}{counts}"
                )

    # --- requests

    def options(self, align: int | None, zero: bool) -> dict[str, Any]:
        return {**({"align": align} if align else {}), **({"zero": True} if zero else {})}

    def request(self, size: int, align: int | None, ask: Callable[[], Any]) -> Any:
        """What ask() gives, or None where the allocator has no memory and is right."""
        given = self.attempt(size, ask, partial(self.expect_out_of_memory, size, align))
        self.was_asked, self.has_served = True, self.has_served or given is not None
        return given

    def attempt(
        self, nbytes: int, ask: Callable[[], Any], expect_refused: Callable[[], None]
    ) -> Any:
        """What ask() gives, or None where that fails; expect_refused() says whether it may."""
        given = None
        try:
            given = ask()
        except MemoryError as error:
            self.forgive(error)
        if given is None:
            expect_refused()
        return given

    def expect_out_of_memory(self, size: int, align: int | None) -> None:
        if self.must_serve(size, unless_told=False):
            blame(f"{size} bytes were refused, and must_serve({size}) is true")

    def must_serve(self, size: int, unless_told: bool) -> bool:
        """What the allocator says of such a request, if it says anything."""
        if hasattr(self.heap.wrapped, "must_serve"):
            return bool(self.heap.must_serve(size))
        return unless_told

    def new_allocation(
        self, address: Any, size: int, align: int | None, has: bytes = b"", usable: int = -1
    ) -> Any:
        """Check and fill what a request has given.

        `has`: what its first bytes must be. `usable`: bytes granted, if not by size.
        """
        if type(address) is not int or address < 0:
            blame(f"the address of {size} bytes is {address!r}")
        usable = self.granted(size, align) if usable < 0 else usable
        allocation = self.make_allocation(address, size, usable)
        self.expect_sound(allocation, align)
        if self.read(address, len(has)) != has:
            kind = "the same as before" if any(has) else "zero"
            blame(f"{len(has)} bytes at {address:#x} were to be {kind}")
        self.fill(allocation)
        self.largest = max(self.largest, size)
        return allocation

    def make_allocation(self, address: int, size: int, usable: int) -> Any:
        return Allocation(address, size, usable)

    def need(self, name: str) -> None:
        if not self.can[name]:
            raise ProgramError(f"the allocator cannot do this: {name} is false")

    def malloc(self, size: int, align: int | None = None, zero: bool = False) -> None:
        if align is not None:
            self.need("has_alignment")
        if zero:
            self.need("has_zero")
        handle, options = self.new_handle(), self.options(align, zero)
        address = self.request(size, align, lambda: self.heap.malloc(size, **options))
        if address is not None:
            self.live[handle] = self.new_allocation(address, size, align, bytes(size * zero))

    def malloc_many(self, count: int, size: int) -> None:
        """`count` allocations at once, all or none."""
        self.need("has_bulk")
        handles = [self.new_handle() for _ in range(count)]
        addresses = self.request(count * size, None, lambda: self.heap.malloc_many(count, size))
        if addresses is not None:
            expect_equal(len(addresses), count, "the number of addresses")
            for handle, address in zip(handles, addresses):
                self.live[handle] = self.new_allocation(address, size, None)

    def realloc(self, handle: int, size: int) -> None:
        self.need("has_realloc")
        allocation = self.find_raw(handle)
        moved = self.request(size, None, lambda: self.heap.realloc(allocation.address, size))
        if moved is not None:
            del self.live[handle]  # what it has come to may overlap what it was
            kept = min(allocation.size, size)
            self.live[handle] = self.new_allocation(moved, size, None, allocation.bytes[:kept])

    def usable_size(self, handle: int) -> None:
        self.need("has_usable_size")
        allocation = self.find_raw(handle)
        usable = self.heap.usable_size(allocation.address)
        if type(usable) is not int or usable < allocation.size:
            blame(f"usable_size() of {allocation.size} bytes is {usable!r}")
        address, what = allocation.address, f"the {usable} bytes of usable_size()"
        self.expect_inside(address, usable, what)
        self.expect_alone(address, usable, what, handle)

    # --- giving back

    def free(self, handle: int) -> None:
        address = self.find_raw(handle).address
        self.heap.free(address)
        self.forget(handle)

    def forget(self, handle: int) -> None:
        allocation = self.live.pop(handle)
        self.freed[handle] = allocation.address, allocation.usable

    def free_many(self, handles: list[int]) -> None:
        self.need("has_bulk")
        self.heap.free_many([self.find_raw(handle).address for handle in handles])
        for handle in handles:
            self.forget(handle)

    def reopen(self) -> None:
        """Close the allocator with all that is live, and make another."""
        if self.can["has_close"]:
            self.heap.close()
        self.make_another()
        self.open()

    # --- misuse

    # What a wrong free raises.
    wrong_address: Errors = Exception

    def double_free(self, handle: int) -> None:
        """Free what was freed, and where nothing else has come to live."""
        if handle not in self.freed_handles():
            raise ProgramError(f"handle {handle} was not freed, or something else lives there")
        self.refused(self.wrong_address, self.heap.free, self.freed[handle][0])

    def free_inside(self, handle: int, more: int) -> None:
        """Free an address inside an allocation."""
        allocation = self.find(handle)
        if allocation.usable < 2:
            raise ProgramError(f"handle {handle} has no inside")
        inside = allocation.address + 1 + more % (allocation.usable - 1)
        self.refused(Exception, self.heap.free, inside)

    def free_foreign(self, kind: int) -> None:
        """Free an address that is none of the allocator's."""
        memory = ctypes.create_string_buffer(64)
        self.refused(Exception, self.heap.free, (ctypes.addressof(memory), 0, 1)[kind % 3])

    # --- what always holds

    def verify(self) -> None:
        for handle, allocation in self.live.items():
            seen = self.read(allocation.address, allocation.usable)
            if seen != allocation.bytes:
                at = next(
                    i for i, byte in enumerate(allocation.bytes) if seen[i : i + 1] != bytes([byte])
                )
                blame(f"byte {at} of the {allocation.usable} bytes of handle {handle} has changed")
        if hasattr(self.heap.wrapped, "check"):
            self.heap.check()

    def drain(self) -> None:
        """Give everything back. Then there is room again for the largest that ever was."""
        for handle in reversed(self.handles()):
            self.free(handle)
        self.verify()
        if self.was_asked and not self.has_served:
            if self.must_serve(1, unless_told=True):
                self.serve(1, "1 byte is refused, and nothing was served before")
        elif self.can["merges"] and self.largest:
            self.serve(self.largest, f"{self.largest} bytes are refused, which were served before")

    def serve(self, size: int, told: str) -> None:
        """Ask for what cannot be refused, and free it."""
        address = self.request(size, None, lambda: self.heap.malloc(size))
        expect(address is not None, f"nothing is live, and {told}")
        self.heap.free(address)

    def close(self) -> None:
        if self.can["has_close"]:
            self.heap.close()
