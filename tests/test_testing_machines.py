"""The machines of bsa.testing, on bsa itself and on what is not bsa."""

import ast
import ctypes
import pathlib
import runpy

import pytest

pytest.importorskip("hypothesis")
from hypothesis import Phase, Verbosity, settings  # noqa: E402
from hypothesis.stateful import run_state_machine_as_test  # noqa: E402

from helpers import poke  # noqa: E402

import bsa  # noqa: E402
from bsa.testing import (  # noqa: E402
    AllocatorFault,
    AllocatorMachine,
    BuddyMachine,
    CAllocator,
    ProgramError,
    SlabMachine,
    run_program,
    shrink_program,
    strategies,
)

FIRST_FIT = pathlib.Path(__file__).resolve().parent.parent / "examples" / "first_fit.py"


Mended = runpy.run_path(str(FIRST_FIT))["Mended"]


# --- bsa


class AllOfBsa(AllocatorMachine):
    # What its regions do not hold it does not give.
    sizes = strategies.sizes(1 << 17) | strategies.sizes()


TestPages = BuddyMachine.TestCase
TestSlabs = SlabMachine.TestCase
TestAll = AllOfBsa.TestCase
for case in (TestPages, TestSlabs, TestAll):
    case.settings = settings(case.settings, stateful_step_count=60)
del case  # or it were collected, too


class OwnMemory(AllocatorMachine):
    """Memory that the allocator has mapped itself, or has of a Block; regions may be added."""

    alignments = strategies.alignments(4096)  # how much more its address has differs
    configurations = [{"nested": False}, {"nested": True}]

    def make_allocator(self, nested):
        with bsa.cpu(0):
            memory = bsa.Allocator(1 << 18, cpus=1).alloc_pages(25) if nested else 100000
        return bsa.Allocator(memory, cpus=2, limit=80000)


TestOwnMemory = OwnMemory.TestCase


# --- the malloc of this process


class LibcMachine(AllocatorMachine):
    sizes = strategies.sizes(1 << 14) | strategies.huge_sizes()
    default_alignment = 2 * ctypes.sizeof(ctypes.c_void_p)

    def make_allocator(self):
        return CAllocator()


TestLibc = LibcMachine.TestCase


# --- allocators that are wrong


def find_fault(machine):
    """The fault that the machine finds, and the program that it prints."""
    found = settings(machine.TestCase.settings, max_examples=500, derandomize=True, database=None)
    with pytest.raises(AllocatorFault) as caught:
        run_state_machine_as_test(machine, settings=found)
    note = caught.value.__notes__[0]
    call = ast.parse(note.partition("This script fails so:\n\n")[2]).body[-1].value
    assert ast.unparse(call.func) == f"{machine.__qualname__}.run"
    return caught.value, ast.literal_eval(call.args[0])


class FirstFitMachine(AllocatorMachine):
    sizes = strategies.sizes(1100, region=1024)
    detects_double_free = True

    def make_allocator(self):
        return runpy.run_path(str(FIRST_FIT))["FirstFit"]()


def test_the_bug_of_the_example_is_found_and_shrunk():
    fault, program = find_fault(FirstFitMachine)
    assert "overlap" in str(fault)
    assert len(program["steps"]) <= 10  # most often 5
    with pytest.raises(AllocatorFault) as again:
        FirstFitMachine.run(program)
    assert str(again.value) == str(fault)  # not that of the long program
    run_program(program, make_allocator=runpy.run_path(str(FIRST_FIT))["Mended"])


class Forgetful(bsa.Allocator):
    """Forgets to copy the last byte when it moves an allocation."""

    def realloc(self, address, size):
        kept = min(self.usable_size(address), size)
        moved = super().realloc(address, size)
        if moved != address and kept:
            poke(moved + kept - 1, b"?")
        return moved


class ForgetfulMachine(AllocatorMachine):
    def make_allocator(self, **options):
        return Forgetful(**options)


def test_the_bug_of_a_derived_class_is_found_and_shrunk():
    fault, program = find_fault(ForgetfulMachine)
    assert "the same as before" in fault.told
    assert [name for name, *_ in program["steps"]][-1] in ("realloc", "resize")
    assert len(program["steps"]) <= 4  # most often 2
    with pytest.raises(AllocatorFault, match="the same as before"):
        ForgetfulMachine.run(program)
    ForgetfulMachine.run({**program, "steps": program["steps"][:-1]})


class TwoBugs(AllocatorMachine):
    """The second bug needs more steps than the first."""

    def make_allocator(self):
        class Two(Mended):
            frees = 0

            def malloc(self, size):
                if size == 7:
                    raise KeyError("seven")
                return super().malloc(size)

            def free(self, address):
                self.frees += 1
                if self.frees == 3:
                    raise OSError("three")
                super().free(address)

        return Two()


def reported(cls, *steps):
    """The fault that the machine reports, and its note."""
    machine = cls()
    machine.start({})
    with pytest.raises(AllocatorFault) as caught:
        try:
            for step in steps:
                machine.do(*step)
        finally:
            machine.teardown()
    return str(caught.value), caught.value.__notes__[0]


def test_the_script_belongs_to_the_fault():
    told, _ = reported(TwoBugs, ("malloc", 7))
    assert told.startswith("step 0, ('malloc', 7): malloc() raised KeyError")
    steps = [step for at in range(3) for step in (("malloc", 1), ("free", at))]
    told, script = reported(TwoBugs, *steps)
    assert told.startswith("the end") and "OSError: three" in told
    assert script.startswith("This script fails so:")
    assert '("malloc", 7)' not in script and "malloc" in script


class NowAndThen(AllocatorMachine):
    """Fails the first time only."""

    fails = iter([True])

    def make_allocator(self):
        class Lucky(Mended):
            def malloc(lucky, size):
                if next(self.fails, False):
                    raise KeyError("luck")
                return super().malloc(size)

        return Lucky()


def test_of_a_program_that_fails_now_and_then_the_first_fault_is_told():
    told, note = reported(NowAndThen, ("malloc", 30))
    assert "KeyError: 'luck'" in told
    assert "did not fail when it was run once more:" in note and '("malloc", 30)' in note


def test_machines_leave_it_to_their_own_shrinking():
    given = FirstFitMachine.TestCase.settings
    assert not {Phase.shrink, Phase.explain} & set(given.phases)
    assert Phase.generate in given.phases and given.verbosity == Verbosity.quiet
    assert given.max_examples == settings.default.max_examples and given.deadline is None
    assert TestAll.settings.stateful_step_count == 60  # and they can be set
    assert FirstFitMachine.TestCase is not TwoBugs.TestCase


def test_of_two_programs_that_fail_the_same_way_the_smaller_is_kept():
    machine = TwoBugs()
    machine.start({})
    with pytest.raises(AllocatorFault):
        machine.do("malloc", 7)
    large = {**machine.exerciser.program, "steps": [("malloc", 7), ("malloc", 9)]}
    TwoBugs._shortest = {"kind": (large, large)}
    assert machine.shortest("kind")["steps"] == [("malloc", 7)]
    machine.teardown()


# --- what machines are made of


def test_a_program_that_does_not_fail_is_not_shrunk():
    with pytest.raises(ProgramError, match="does not fail"):
        shrink_program({"machine": "slab", "setup": {}, "steps": []})
    with pytest.raises(ProgramError, match="step 0.*handle 0"):
        setup = {"cpus": 1, "regions": [(0, 100000, None)]}
        shrink_program({"machine": "slab", "setup": setup, "steps": [("free", 0)]})


@pytest.mark.parametrize(
    "name, meant",
    [
        ("detects_dubble_free", "detects_double_free"),
        ("detect_double_free", "detects_double_free"),
        ("make_alocator", "make_allocator"),
        ("configuration", "configurations"),
        ("has_nothing_like_it", None),
    ],
)
def test_a_misspelt_attribute_is_refused(name, meant):
    hint = rf"{name}: no machine knows this attribute" + (
        f"; did you mean {meant}" if meant else "$"
    )
    with pytest.raises(TypeError, match=hint):
        type("Misspelt", (AllocatorMachine,), {name: True})


@pytest.mark.parametrize("machine", [SlabMachine, BuddyMachine])
def test_an_exact_machine_needs_regions(machine):
    with pytest.raises(ProgramError, match="Own.configurations draws no 'regions'"):
        own = type("Own", (machine,), {"configurations": [{"cpus": 1}]})
        run_state_machine_as_test(own, settings=settings(max_examples=5, database=None))


class OfLists(AllocatorMachine):
    sizes = [8, 100, 5000]
    alignments = (None, 64)
    configurations = [{"page_size": 256, "cpus": 1, "regions": [(0, 40000, None)]}]


TestOfLists = OfLists.TestCase


class WrongWhenAligned(bsa.Allocator):
    def malloc(self, size, align=None, **options):
        return super().malloc(size, align, **options) + (align or 0) // 16 % 2


def test_an_alignment_stays_one():
    setup = {"page_size": 4096, "cpus": 1, "regions": [(0, 100000, None)]}
    program = {"machine": "allocator", "setup": setup, "steps": [("malloc", 40, 16)]}
    assert shrink_program(program, WrongWhenAligned)["steps"] == [("malloc", 0, 16)]


class Wrong(bsa.Allocator):
    def usable_size(self, address):
        return super().usable_size(address) + 1


def test_a_program_is_shrunk_with_all_that_depends_on_what_goes():
    setup = {"page_size": 4096, "cpus": 1, "regions": [(0, 100000, None)]}
    steps = [("alloc", 10), ("export", 0), ("malloc_many", 3, 5), ("free_many", [1, 2, 3])]
    steps += [("resize", 0, 0), ("malloc", 70), ("free", 4), ("trim",)]
    program = {"machine": "allocator", "setup": setup, "steps": steps}
    assert shrink_program(program, Wrong)["steps"] == [("alloc", 0)]


def test_without_parameters_make_allocator_is_given_nothing():
    assert FirstFitMachine.configurations is not AllocatorMachine.configurations
    assert ForgetfulMachine.configurations is AllocatorMachine.configurations


def test_flags_are_part_of_the_program():
    machine = FirstFitMachine()
    machine.start({})
    assert machine.exerciser.program["flags"] == {"detects_double_free": True}
    machine.teardown()
