"""Hypothesis state machines: they draw steps, an exerciser does them.

BuddyMachine and SlabMachine compare bsa with exact models. AllocatorMachine does all that can be
done with bsa.Allocator; derive from it to test another allocator.
"""

import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from inspect import signature
from typing import Any, ClassVar, NoReturn, TypeVar

from hypothesis import Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import bsa

from . import strategies
from .exerciser import FLAGS, AllocatorFault, Program, ProgramError
from .heap_misuse import WRONG_CALLS
from .on_oom import ANSWERS
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


def _new_sizes(machine: "AllocatorMachine") -> st.SearchStrategy[int]:
    # In C, realloc(address, 0) frees.
    least = 0 if machine.exerciser.can.get("has_blocks") else 1
    return strategies.choices(machine.sizes).map(lambda size: max(size, least))


def _limits(machine: "AllocatorMachine") -> st.SearchStrategy[int | None]:
    page_size = machine.exerciser.page_size
    return st.none() | st.integers(0, 60).map(lambda pages: pages * page_size)


def _aligns_of_pages(machine: "_Machine") -> st.SearchStrategy[int | None]:
    page_size = machine.exerciser.page_size
    return st.sampled_from([None, *(page_size << order for order in range(7))])


def one_of(name: str) -> st.SearchStrategy[int]:
    """One of the handles that the exerciser's method of that name lists."""

    def handles(machine: "_Machine") -> st.SearchStrategy[int]:
        return st.sampled_from(getattr(machine.exerciser, name)())

    return of_machine(handles)


def any_of(name: str) -> Callable[[Rule], Rule]:
    """Only while there are such handles. An exerciser may know none of the kind."""
    return precondition(lambda self: bool(getattr(self.exerciser, name, list)()))


def can(*names: str) -> Callable[[Rule], Rule]:
    """Only if the allocator can do this."""
    return precondition(lambda self: all(self.exerciser.can.get(name) for name in names))


def step(name: str, *needs: str, **draws: st.SearchStrategy[Any] | str) -> Any:
    """A rule of that name that does the step of that name, if the allocator `can` do what it needs.

    draws: what the step's arguments are drawn from. A name stands for handles, see one_of(); the
    rule holds only while there are any.
    """

    def do(self: "_Machine", **drawn: Any) -> None:
        self.do(name, *(drawn[argument] for argument in draws))

    do.__name__ = name
    made = can(*needs)(do)
    for of in draws.values():
        made = any_of(of)(made) if isinstance(of, str) else made
    from_what: dict[str, Any] = {
        a: one_of(of) if isinstance(of, str) else of for a, of in draws.items()
    }
    return rule(**from_what)(made)


sections, new_regions = of_machine(_sections), of_machine(_regions)
sizes_of_pages, aligns_of_pages = of_machine(_sizes_of_pages), of_machine(_aligns_of_pages)
any_size, any_alignment = of_machine(_sizes), of_machine(_alignments)
new_sizes, limits = of_machine(_new_sizes), of_machine(_limits)
anything = st.integers(0, 1 << 20)  # to be taken modulo something
cpus = st.integers(0, 3)
few_sections = precondition(lambda self: len(getattr(self.exerciser, "pieces", ())) < 3)
many_sections = precondition(lambda self: len(getattr(self.exerciser, "pieces", ())) > 1)


@cache
def _test_case(machine: "type[_Machine]") -> Any:
    """Hypothesis's, but for what shrink_program() does quicker and tells in fewer words."""
    made = super(_Machine, machine).TestCase
    as_usual = made.settings
    phases = [p for p in as_usual.phases if p not in (Phase.shrink, Phase.explain)]
    is_usual = as_usual.verbosity == Verbosity.normal
    verbosity = Verbosity.quiet if is_usual else as_usual.verbosity
    made.settings = settings(as_usual, phases=phases, verbosity=verbosity)
    return made


class _TestCase:
    """The unittest.TestCase of a machine's class, made when it is first asked for."""

    def __get__(self, machine: "_Machine | None", cls: "type[_Machine]") -> Any:
        return _test_case(cls)


# What users set or override in a machine of their own.
_SETTINGS = (*FLAGS, "make_allocator", "configurations")


def _refuse_misspelt(cls: type, name: str, value: object) -> None:
    """TypeError for an attribute of a user's machine that would be ignored: a flag that nobody
    knows, or what is nearly the name of a setting."""
    if name in _SETTINGS or name.startswith("_"):
        return
    close = get_close_matches(name, _SETTINGS, n=1, cutoff=0.85)
    if close or (name.startswith(("has_", "detects_")) and not callable(value)):
        hint = f"; did you mean {close[0]}?" if close else ""
        raise TypeError(f"{cls.__qualname__}.{name}: no machine knows this attribute{hint}")


class _Machine(RuleBasedStateMachine):
    """Draws a setup and steps; if they fail, shows the shortest program that fails so."""

    TestCase: Any = _TestCase()

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
            _refuse_misspelt(cls, name, value)
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
        """Finish the program; or if it has failed, report that."""
        if self.exerciser is None:
            return
        error = sys.exc_info()[1]
        if error is self._in_flight:
            try:
                self.exerciser.finish()
            except AllocatorFault as fault:
                self.report(fault)
            except BaseException:
                self.exerciser.abandon()
                raise
        elif isinstance(error, AllocatorFault):
            self.report(error)
        else:
            self.exerciser.abandon()

    def report(self, fault: AllocatorFault) -> NoReturn:
        """Raise the fault of the shortest program that fails so, with the program as a note."""
        self.exerciser.abandon()
        program = self.shortest(kind_of(fault))
        shown = fault_of(program, self.make_allocator)
        told = "fails so:" if shown else "did not fail when it was run once more:"
        shown = shown or fault
        shown.add_note(f"This script {told}\n\n{self.script(program)}")
        raise shown

    def shortest(self, kind: str) -> Program:
        """The smallest program known that fails so, cut down."""
        program, known = self.exerciser.program, self._shortest.get(kind)
        # Hypothesis runs a program that fails several times: shrink it once.
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

    # --- rules of them all

    @rule(region=new_regions)
    @can("has_sections")
    @few_sections
    def extend(self, region: strategies.Region) -> None:
        self.do("extend", *region)

    remove_section = many_sections(step("remove_section", "has_sections", index=sections))


class BuddyMachine(_Machine):
    """Pages of bsa.Allocator: which block each request gets, and every free list, is predicted."""

    machine = "buddy"

    alloc_pages = step(
        "alloc_pages", count=st.integers(1, 40), align=aligns_of_pages, exact=st.booleans()
    )
    malloc = step("malloc", size=sizes_of_pages, align=strategies.alignments())
    resize = step("resize", handle="handles", size=sizes_of_pages)
    detach = step("detach", handle="owned_handles")
    adopt = step("adopt", handle="raw_handles")
    free = step("free", handle="handles")
    drop = step("drop", handle="owned_handles")
    dealloc = step("dealloc", handle="raw_handles")
    misuse = step("misuse", handle="raw_handles", more=anything)


class SlabMachine(_Machine):
    """Objects and pages of bsa.Allocator, from several slots: each address is predicted."""

    machine = "slab"
    sizes: ClassVar[strategies.Choices[int]] = strategies.sizes(1 << 17)
    alignments: ClassVar[strategies.Choices[int | None]] = strategies.alignments(1 << 17)

    cpu = step("cpu", cpu=cpus)
    malloc = step("malloc", size=any_size, align=any_alignment)

    @rule(size=any_size, times=st.integers(2, 150))
    def malloc_some(self, size: int, times: int) -> None:
        self.do("malloc", size, None, times)

    realloc = step("realloc", handle="handles", size=any_size)
    free = step("free", handle="handles")
    free_like = step("free_like", handle="handles", every=st.integers(1, 3))
    trim = step("trim")
    double_free = step("double_free", handle="freed_handles")
    free_between = step("free_between", handle="handles", more=anything)


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
    has_on_oom: ClassVar[bool | None] = None
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

    malloc = step("malloc", size=any_size)

    @rule(size=any_size, align=any_alignment)
    @can("has_alignment")
    def malloc_aligned(self, size: int, align: int | None) -> None:
        self.do("malloc", size, align)

    @rule(size=any_size)
    @can("has_zero")
    def malloc_zero(self, size: int) -> None:
        self.do("malloc", size, None, True)

    free = step("free", handle="raw_handles")
    realloc = step("realloc", "has_realloc", handle="raw_handles", size=new_sizes)
    usable_size = step("usable_size", "has_usable_size", handle="raw_handles")
    malloc_many = step(
        "malloc_many", "has_bulk", count=st.integers(0, 100), size=st.integers(0, 200)
    )

    @rule(first=one_of("raw_handles"), every=st.integers(1, 3))
    @can("has_bulk")
    @any_of("raw_handles")
    def free_many(self, first: int, every: int) -> None:
        handles = [handle for handle in self.exerciser.raw_handles() if handle >= first]
        self.do("free_many", handles[::every])

    reopen = step("reopen", "has_close")

    # --- misuse

    double_free = step("double_free", "detects_double_free", handle="freed_handles")
    free_inside = step(
        "free_inside", "detects_interior_free", handle="handles_with_inside", more=anything
    )
    free_foreign = step("free_foreign", "detects_foreign_free", kind=st.integers(0, 100))

    # --- slots, limit, what a heap does besides

    cpu = step("cpu", "has_cpus", cpu=cpus)

    @rule(handle=one_of("raw_handles"), cpu=cpus)
    @can("has_cpus")
    @any_of("raw_handles")
    def free_twice_from_elsewhere(self, handle: int, cpu: int) -> None:
        before = bsa.current_cpu()
        self.do("cpu", cpu)
        self.do("free", handle)
        self.do("double_free", handle)
        self.do("cpu", before)
        self.do("double_free", handle)

    limit = step("limit", "has_limit", nbytes=limits)
    on_oom = step("on_oom", "has_on_oom", answer=st.sampled_from([None, *ANSWERS]))
    reset_peak = step("reset_peak", "has_blocks")
    trim = step("trim", "has_blocks")

    # --- Blocks and pages

    alloc = step("alloc", "has_blocks", size=any_size, align=any_alignment, zero=st.booleans())
    alloc_from = step("alloc_from", "has_blocks", size=st.integers(0, 300))
    alloc_pages = step(
        "alloc_pages",
        "has_pages",
        count=st.integers(1, 20),
        align=aligns_of_pages,
        exact=st.booleans(),
    )
    alloc_pages_lowmem = step("alloc_pages_lowmem", "has_pages", count=st.integers(1, 20))
    resize = step("resize", "has_blocks", handle="resizable_handles", size=any_size)
    detach = step("detach", "has_blocks", handle="block_handles")
    adopt = step("adopt", "has_blocks", handle="raw_handles")
    export = step("export", "has_blocks", handle="block_handles")
    nest = step("nest", "has_blocks", handle="roomy_handles", size=st.integers(0, 300))
    release_view = step("release_view", "has_blocks", handle="viewed_handles")
    free_block = step("free_block", "has_blocks", handle="owned_handles", by_heap=st.booleans())
    drop = step("drop", "has_blocks", handle="owned_handles")
    dealloc = step("dealloc", "has_pages", handle="page_handles")

    # --- misuse of Blocks and pages

    free_inside_freed = step(
        "free_inside_freed",
        "has_blocks",
        "detects_interior_free",
        handle="freed_handles",
        more=anything,
    )
    free_pages_wrongly = step(
        "free_pages_wrongly", "has_pages", handle="page_handles", more=anything
    )
    free_many_wrongly = step(
        "free_many_wrongly", "has_blocks", "has_bulk", handle="raw_handles", other="handles"
    )
    take_from_block = step("take_from_block", "has_blocks", handle="owned_handles")
    wrong_call = step("wrong_call", "has_blocks", index=st.integers(0, len(WRONG_CALLS) - 1))
