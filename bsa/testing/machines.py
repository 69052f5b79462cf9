"""Hypothesis state machines: they draw steps, an exerciser does them.

BuddyMachine and SlabMachine compare bsa with exact models. AllocatorMachine does all that can be
done with bsa.Allocator; derive from it to test another allocator.
"""

import sys
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, ClassVar, TypeVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import bsa

from . import strategies
from .exerciser import FLAGS, AllocatorFault, Program, ProgramError
from .heap import WRONG_CALLS
from .program import exerciser_for, run_program, script
from .shrink import fault_of, kind_of, measure, shrink_program

Rule = TypeVar("Rule", bound=Callable[..., Any])


# --- what rules draw from


# Named functions: of lambdas Hypothesis looks up the source, again and again.


def of_machine(draws: Callable[[Any], st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """What the function draws for the machine that runs."""
    return st.runner().flatmap(draws)


def _configurations(machine: "_Machine") -> st.SearchStrategy[Any]:
    return strategies.choices(machine.configurations)


def _sizes(machine: "AllocatorMachine") -> st.SearchStrategy[int]:
    return strategies.choices(machine.sizes)


def _alignments(machine: "AllocatorMachine") -> st.SearchStrategy[int | None]:
    return strategies.choices(machine.alignments)


def _sections(machine: "_Machine") -> st.SearchStrategy[int]:
    return st.integers(0, len(machine.exerciser.pieces) - 1)


def _regions(machine: "_Machine") -> st.SearchStrategy[strategies.Region]:
    return strategies.regions(machine.exerciser.page_size, 40)


def _sizes_of_pages(machine: "_Machine") -> st.SearchStrategy[int]:
    page_size = machine.exerciser.page_size
    return st.integers(page_size // 2 + 1, 20 * page_size)


def _aligns_of_pages(machine: "_Machine") -> st.SearchStrategy[int | None]:
    page_size = machine.exerciser.page_size
    return st.sampled_from([None, *(page_size << order for order in range(7))])


def one_of(name: str) -> st.SearchStrategy[int]:
    """One of the handles that the exerciser's method of that name lists."""

    def handles(machine: "_Machine") -> st.SearchStrategy[int]:
        return st.sampled_from(getattr(machine.exerciser, name)())

    return of_machine(handles)


def any_of(name: str) -> Callable[[Rule], Rule]:
    """Only while there are any such handles. An exerciser may know none of the kind."""
    return precondition(lambda self: bool(getattr(self.exerciser, name, list)()))


def can(*names: str) -> Callable[[Rule], Rule]:
    """Only if the allocator can do this."""
    return precondition(lambda self: all(self.exerciser.can.get(name) for name in names))


sections, new_regions = of_machine(_sections), of_machine(_regions)
sizes_of_pages, aligns_of_pages = of_machine(_sizes_of_pages), of_machine(_aligns_of_pages)
any_size, any_alignment = of_machine(_sizes), of_machine(_alignments)
anything = st.integers(0, 1 << 20)  # to be taken modulo something
few_sections = precondition(lambda self: len(getattr(self.exerciser, "pieces", ())) < 3)
many_sections = precondition(lambda self: len(getattr(self.exerciser, "pieces", ())) > 1)


class _Machine(RuleBasedStateMachine):
    """Draws a setup and steps; prints the program where it fails."""

    machine: ClassVar[str]

    # What make_allocator() is given, and "regions", which are added to what it makes.
    configurations: ClassVar[strategies.Choices[dict[str, Any]]] = strategies.configurations()

    # The smallest program that fails in each kind of way; and cut down.
    _shortest: ClassVar[dict[str, tuple[Program, Program]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.exerciser: Any = None
        self._in_flight = sys.exc_info()[1]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._shortest = {}
        own = vars(cls)
        for name, value in own.items():
            if name.startswith(("has_", "detects_")) and not callable(value) and name not in FLAGS:
                raise TypeError(f"{cls.__qualname__}.{name}: no machine knows this attribute")
        if "make_allocator" in own and "configurations" not in own:
            if len(signature(cls.make_allocator).parameters) == 1:  # self alone
                cls.configurations = st.just({})

    def make_allocator(self, *arguments: Any, **options: Any) -> Any:
        """A new allocator. Override it, with parameters named as `configurations` has them."""
        return bsa.Allocator(*arguments, **options)

    def flags(self) -> Mapping[str, Any]:
        return {}

    @initialize(setup=of_machine(_configurations))
    def start(self, setup: dict[str, Any]) -> None:
        """Make the allocator."""
        if self.machine != "allocator" and not setup.get("regions"):
            name = type(self).__qualname__
            raise ProgramError(f"{name}.configurations draws no 'regions': {setup!r}")
        program = {"machine": self.machine, "setup": setup, "flags": self.flags(), "steps": []}
        self.exerciser = exerciser_for(program, self.make_allocator)
        self.exerciser.start()

    def do(self, name: str, *arguments: Any) -> None:
        """Do a step, and write it down."""
        self.exerciser.do(name, *arguments)

    def teardown(self) -> None:
        """Finish the program; or if it has failed, print it."""
        if self.exerciser is None:
            return
        error = sys.exc_info()[1]
        if error is self._in_flight:
            try:
                self.exerciser.finish()
            except AllocatorFault as fault:
                self.report(fault)
                raise
            except BaseException:
                self.exerciser.abandon()
                raise
        elif isinstance(error, AllocatorFault):
            self.report(error)
        else:
            self.exerciser.abandon()

    def report(self, fault: AllocatorFault) -> None:
        self.exerciser.abandon()
        program = self.shortest(kind_of(fault))
        shown = fault_of(program, self.make_allocator)
        told = f"fails with: {shown}" if shown else "did not fail when it was run once more."
        note(f"This script {told}\n\n{self.script(program)}")

    def shortest(self, kind: str) -> Program:
        """The smallest program known that fails so, cut down further than Hypothesis did."""
        program, known = self.exerciser.program, self._shortest.get(kind)
        # Hypothesis runs many programs that fail before it shows one: shrink only the smallest.
        if known is None or measure(program) < measure(known[0]):
            try:
                small = shrink_program(program, self.make_allocator)
            except ProgramError:  # it fails now and then
                small = program
            if known is not None:
                small = min(small, known[1], key=measure)
            known = self._shortest[kind] = program, small
        return known[1]

    def script(self, program: Program) -> str:
        cls = type(self)
        if cls.make_allocator is _Machine.make_allocator:
            return script(program)
        return script(program, f"{cls.__qualname__}.run", cls.__module__)

    @classmethod
    def run(cls, program: Mapping[str, Any]) -> None:
        """run_program() for a program that a machine of this class has printed."""
        run_program(program, make_allocator=cls().make_allocator)


class BuddyMachine(_Machine):
    """Pages of bsa.Allocator: which block each request gets, and every free list, is predicted."""

    machine = "buddy"

    @rule(region=new_regions)
    @few_sections
    def extend(self, region: strategies.Region) -> None:
        self.do("extend", *region)

    @rule(index=sections)
    @many_sections
    def remove_section(self, index: int) -> None:
        self.do("remove_section", index)

    @rule(count=st.integers(1, 40), align=aligns_of_pages, exact=st.booleans())
    def alloc_pages(self, count: int, align: int | None, exact: bool) -> None:
        self.do("alloc_pages", count, align, exact)

    @rule(size=sizes_of_pages, align=strategies.alignments())
    def malloc(self, size: int, align: int | None) -> None:
        self.do("malloc", size, align)

    @rule(handle=one_of("handles"), size=sizes_of_pages)
    @any_of("handles")
    def resize(self, handle: int, size: int) -> None:
        self.do("resize", handle, size)

    @rule(handle=one_of("owned_handles"))
    @any_of("owned_handles")
    def detach(self, handle: int) -> None:
        self.do("detach", handle)

    @rule(handle=one_of("raw_handles"))
    @any_of("raw_handles")
    def adopt(self, handle: int) -> None:
        self.do("adopt", handle)

    @rule(handle=one_of("handles"))
    @any_of("handles")
    def free(self, handle: int) -> None:
        self.do("free", handle)

    @rule(handle=one_of("owned_handles"))
    @any_of("owned_handles")
    def drop(self, handle: int) -> None:
        self.do("drop", handle)

    @rule(handle=one_of("raw_handles"))
    @any_of("raw_handles")
    def dealloc(self, handle: int) -> None:
        self.do("dealloc", handle)

    @rule(handle=one_of("raw_handles"), more=anything)
    @any_of("raw_handles")
    def misuse(self, handle: int, more: int) -> None:
        self.do("misuse", handle, more)


class SlabMachine(_Machine):
    """Objects and pages of bsa.Allocator, from several slots: each address is predicted."""

    machine = "slab"
    sizes: ClassVar[strategies.Choices[int]] = strategies.sizes(1 << 17)
    alignments: ClassVar[strategies.Choices[int | None]] = strategies.alignments(1 << 17)

    @rule(cpu=st.integers(0, 3))
    def cpu(self, cpu: int) -> None:
        self.do("cpu", cpu)

    @rule(region=new_regions)
    @few_sections
    def extend(self, region: strategies.Region) -> None:
        self.do("extend", *region)

    @rule(index=sections)
    @many_sections
    def remove_section(self, index: int) -> None:
        self.do("remove_section", index)

    @rule(size=any_size, align=any_alignment)
    def malloc(self, size: int, align: int | None) -> None:
        self.do("malloc", size, align)

    @rule(size=any_size, times=st.integers(2, 150))
    def malloc_some(self, size: int, times: int) -> None:
        self.do("malloc", size, None, times)

    @rule(handle=one_of("handles"), size=any_size)
    @any_of("handles")
    def realloc(self, handle: int, size: int) -> None:
        self.do("realloc", handle, size)

    @rule(handle=one_of("handles"))
    @any_of("handles")
    def free(self, handle: int) -> None:
        self.do("free", handle)

    @rule(handle=one_of("handles"), every=st.integers(1, 3))
    @any_of("handles")
    def free_like(self, handle: int, every: int) -> None:
        self.do("free_like", handle, every)

    @rule()
    def trim(self) -> None:
        self.do("trim")

    @rule(handle=one_of("freed_handles"))
    @any_of("freed_handles")
    def double_free(self, handle: int) -> None:
        self.do("double_free", handle)

    @rule(handle=one_of("handles"), more=anything)
    @any_of("handles")
    def free_between(self, handle: int, more: int) -> None:
        self.do("free_between", handle, more)


class AllocatorMachine(_Machine):
    """Everything that can be done with an allocator, bsa's or another, right and wrong.

    To test another one, derive, override make_allocator, and say in the attributes below what
    cannot be seen by looking at it. None: as found; of a bsa.Allocator everything.
    """

    machine = "allocator"

    #: Bytes and alignments to ask for. What is given is written to, so nothing that could be had
    #: and would hurt; and some that nobody can have.
    sizes: ClassVar[strategies.Choices[int]] = strategies.sizes(1 << 17) | strategies.huge_sizes()
    alignments: ClassVar[strategies.Choices[int | None]] = strategies.alignments()

    #: malloc() takes `align`; `zero`; there is realloc(); usable_size(); malloc_many() and
    #: free_many(); close().
    has_alignment: ClassVar[bool | None] = None
    has_zero: ClassVar[bool | None] = None
    has_realloc: ClassVar[bool | None] = None
    has_usable_size: ClassVar[bool | None] = None
    has_bulk: ClassVar[bool | None] = None
    has_close: ClassVar[bool | None] = None
    #: Only of bsa.Allocator and what is derived from it.
    has_blocks: ClassVar[bool | None] = None
    has_pages: ClassVar[bool | None] = None
    has_cpus: ClassVar[bool | None] = None
    has_sections: ClassVar[bool | None] = None
    has_limit: ClassVar[bool | None] = None
    #: free() raises, and changes nothing, where an address was freed; is inside an allocation; is
    #: none of the allocator's.
    detects_double_free: ClassVar[bool | None] = None
    detects_interior_free: ClassVar[bool | None] = None
    detects_foreign_free: ClassVar[bool | None] = None
    #: Bytes of which each address is a multiple.
    default_alignment: ClassVar[int | None] = None
    #: When all is freed, what once was served can be served again.
    merges: ClassVar[bool | None] = None

    def flags(self) -> Mapping[str, Any]:
        known = {name: getattr(self, name) for name in FLAGS}
        return {name: value for name, value in known.items() if value is not None}

    # --- addresses

    @rule(size=any_size)
    def malloc(self, size: int) -> None:
        self.do("malloc", size)

    @rule(size=any_size, align=any_alignment)
    @can("has_alignment")
    def malloc_aligned(self, size: int, align: int | None) -> None:
        self.do("malloc", size, align)

    @rule(size=any_size)
    @can("has_zero")
    def malloc_zero(self, size: int) -> None:
        self.do("malloc", size, None, True)

    @rule(handle=one_of("raw_handles"))
    @any_of("raw_handles")
    def free(self, handle: int) -> None:
        self.do("free", handle)

    @rule(handle=one_of("raw_handles"), size=any_size)
    @can("has_realloc")
    @any_of("raw_handles")
    def realloc(self, handle: int, size: int) -> None:
        # In C, realloc(address, 0) frees.
        self.do("realloc", handle, size if self.exerciser.can.get("has_blocks") else max(size, 1))

    @rule(handle=one_of("raw_handles"))
    @can("has_usable_size")
    @any_of("raw_handles")
    def usable_size(self, handle: int) -> None:
        self.do("usable_size", handle)

    @rule(count=st.integers(0, 100), size=st.integers(0, 200))
    @can("has_bulk")
    def malloc_many(self, count: int, size: int) -> None:
        self.do("malloc_many", count, size)

    @rule(first=one_of("raw_handles"), every=st.integers(1, 3))
    @can("has_bulk")
    @any_of("raw_handles")
    def free_many(self, first: int, every: int) -> None:
        handles = [handle for handle in self.exerciser.raw_handles() if handle >= first]
        self.do("free_many", handles[::every])

    @rule()
    @can("has_close")
    def reopen(self) -> None:
        self.do("reopen")

    # --- misuse

    @rule(handle=one_of("freed_handles"))
    @can("detects_double_free")
    @any_of("freed_handles")
    def double_free(self, handle: int) -> None:
        self.do("double_free", handle)

    @rule(handle=one_of("handles_with_inside"), more=anything)
    @can("detects_interior_free")
    @any_of("handles_with_inside")
    def free_inside(self, handle: int, more: int) -> None:
        self.do("free_inside", handle, more)

    @rule(kind=st.integers(0, 100))
    @can("detects_foreign_free")
    def free_foreign(self, kind: int) -> None:
        self.do("free_foreign", kind)

    # --- slots, sections, limit

    @rule(cpu=st.integers(0, 3))
    @can("has_cpus")
    def cpu(self, cpu: int) -> None:
        self.do("cpu", cpu)

    @rule(handle=one_of("raw_handles"), cpu=st.integers(0, 3))
    @can("has_cpus")
    @any_of("raw_handles")
    def free_twice_from_elsewhere(self, handle: int, cpu: int) -> None:
        before = bsa.current_cpu()
        self.do("cpu", cpu)
        self.do("free", handle)
        self.do("double_free", handle)
        self.do("cpu", before)
        self.do("double_free", handle)

    @rule(region=new_regions)
    @can("has_sections")
    @few_sections
    def extend(self, region: strategies.Region) -> None:
        self.do("extend", *region)

    @rule(index=sections)
    @can("has_sections")
    @many_sections
    def remove_section(self, index: int) -> None:
        self.do("remove_section", index)

    @rule(pages=st.none() | st.integers(0, 60))
    @can("has_limit")
    def limit(self, pages: int | None) -> None:
        self.do("limit", None if pages is None else pages * self.exerciser.page_size)

    @rule()
    @can("has_blocks")
    def trim(self) -> None:
        self.do("trim")

    # --- Blocks

    @rule(size=any_size, align=any_alignment, zero=st.booleans())
    @can("has_blocks")
    def alloc(self, size: int, align: int | None, zero: bool) -> None:
        self.do("alloc", size, align, zero)

    @rule(size=st.integers(0, 300))
    @can("has_blocks")
    def alloc_from(self, size: int) -> None:
        self.do("alloc_from", size)

    @rule(count=st.integers(1, 20), align=aligns_of_pages, exact=st.booleans())
    @can("has_pages")
    def alloc_pages(self, count: int, align: int | None, exact: bool) -> None:
        self.do("alloc_pages", count, align, exact)

    @rule(count=st.integers(1, 20))
    @can("has_pages")
    def alloc_pages_lowmem(self, count: int) -> None:
        self.do("alloc_pages_lowmem", count)

    @rule(handle=one_of("resizable_handles"), size=any_size)
    @can("has_blocks")
    @any_of("resizable_handles")
    def resize(self, handle: int, size: int) -> None:
        self.do("resize", handle, size)

    @rule(handle=one_of("block_handles"))
    @can("has_blocks")
    @any_of("block_handles")
    def detach(self, handle: int) -> None:
        self.do("detach", handle)

    @rule(handle=one_of("raw_handles"))
    @can("has_blocks")
    @any_of("raw_handles")
    def adopt(self, handle: int) -> None:
        self.do("adopt", handle)

    @rule(handle=one_of("block_handles"))
    @can("has_blocks")
    @any_of("block_handles")
    def export(self, handle: int) -> None:
        self.do("export", handle)

    @rule(handle=one_of("viewed_handles"))
    @can("has_blocks")
    @any_of("viewed_handles")
    def release_view(self, handle: int) -> None:
        self.do("release_view", handle)

    @rule(handle=one_of("owned_handles"), by_heap=st.booleans())
    @can("has_blocks")
    @any_of("owned_handles")
    def free_block(self, handle: int, by_heap: bool) -> None:
        self.do("free_block", handle, by_heap)

    @rule(handle=one_of("owned_handles"))
    @can("has_blocks")
    @any_of("owned_handles")
    def drop(self, handle: int) -> None:
        self.do("drop", handle)

    @rule(handle=one_of("page_handles"))
    @can("has_pages")
    @any_of("page_handles")
    def dealloc(self, handle: int) -> None:
        self.do("dealloc", handle)

    # --- misuse of Blocks and pages

    @rule(handle=one_of("freed_handles"), more=anything)
    @can("has_blocks", "detects_interior_free")
    @any_of("freed_handles")
    def free_inside_freed(self, handle: int, more: int) -> None:
        self.do("free_inside_freed", handle, more)

    @rule(handle=one_of("page_handles"), more=anything)
    @can("has_pages")
    @any_of("page_handles")
    def free_pages_wrongly(self, handle: int, more: int) -> None:
        self.do("free_pages_wrongly", handle, more)

    @rule(handle=one_of("raw_handles"), other=one_of("handles"))
    @can("has_blocks", "has_bulk")
    @any_of("raw_handles")
    def free_many_wrongly(self, handle: int, other: int) -> None:
        self.do("free_many_wrongly", handle, other)

    @rule(handle=one_of("owned_handles"))
    @can("has_blocks")
    @any_of("owned_handles")
    def take_from_block(self, handle: int) -> None:
        self.do("take_from_block", handle)

    @rule(index=st.integers(0, len(WRONG_CALLS) - 1))
    @can("has_blocks")
    def wrong_call(self, index: int) -> None:
        self.do("wrong_call", index)
