"""bsa.testing without Hypothesis: programs, and whose fault it is."""

import importlib.util
import pathlib
import runpy
import subprocess
import sys
import textwrap

import pytest

from helpers import poke
from test_docs import blocks, run_block

import bsa
import bsa.testing
from bsa.testing import AllocatorFault, CAllocator, ProgramError, run_program

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
FirstFit = runpy.run_path(str(EXAMPLES / "first_fit.py"))["Mended"]

SETUP = {"page_size": 4096, "cpus": 2, "regions": [(100, 100000, None)]}


def run(*steps, make_allocator=bsa.Allocator, machine="allocator", setup=SETUP, **flags):
    program = {"machine": machine, "setup": setup, "flags": flags, "steps": list(steps)}
    run_program(program, make_allocator)


# --- programs


@pytest.mark.parametrize("machine", ["allocator", "slab", "buddy"])
def test_a_program_runs(machine):
    run(("malloc", 5000), ("malloc", 9000), ("free", 0), machine=machine)


def test_a_program_changes_neither_itself_nor_the_threads_slot():
    program = {"machine": "slab", "setup": SETUP, "steps": [("cpu", 1), ("malloc", 8)]}
    before = repr(program)
    with bsa.cpu(3):
        run_program(program)
        assert bsa.current_cpu() == 3
    assert repr(program) == before


def test_a_handle_counts_requests_that_failed_too():
    run(("malloc", 1 << 60), ("malloc", 24), ("free", 1))


@pytest.mark.parametrize(
    "step, told",
    [
        (("mallloc", 8), "no such step"),
        (("free", 0), "handle 0"),
        (("double_free", 0), "handle 0"),
        (("remove_section", 7), "section 7"),
        (("export", 0), "handle 0"),
        (("close",), "no such step"),  # a method, but no step
        (("malloc",), "size"),
        (("trim", 1), "argument"),
    ],
)
def test_a_step_that_cannot_be_done_is_the_programs_error(step, told):
    with pytest.raises(ProgramError, match=f"step 0.*{told}"):
        run(step)


def test_an_unknown_machine_is_the_programs_error():
    with pytest.raises(ProgramError, match="'budy'"):
        run(machine="budy")


@pytest.mark.parametrize("machine", ["buddy", "slab"])
def test_exact_machines_are_for_bsa(machine):
    with pytest.raises(ProgramError, match="bsa.Allocator"):
        run(machine=machine, make_allocator=FirstFit, setup={})


def test_after_a_fault_nothing_is_left_behind():
    class Broken(bsa.Allocator):
        def malloc(self, size, **options):
            return super().malloc(size) + 1

    with bsa.cpu(1):
        with pytest.raises(AllocatorFault):
            run(("alloc", 100), ("export", 0), ("malloc", 8), make_allocator=Broken)
        assert bsa.current_cpu() == 1


# --- whose fault


def overlaps(self, size, **options):
    self.first = getattr(self, "first", None) or bsa.Allocator.malloc(self, size, **options)
    return self.first


def is_no_number(self, size, **options):
    return str(bsa.Allocator.malloc(self, size, **options))


def raises(self, size, **options):
    raise KeyError("lost")


def is_unaligned(self, size, **options):
    return bsa.Allocator.malloc(self, size, **options) + 4


def is_elsewhere(self, size, **options):
    return self.sections[0].start + self.sections[0].size


def refuses(self, size, **options):
    return None


def changes_bytes(self, size, **options):
    for address, _, _ in self.walk():
        poke(address + 7, b"?")
    return bsa.Allocator.malloc(self, size, **options)


@pytest.mark.parametrize(
    "malloc, told",
    [
        (overlaps, "overlap"),
        (is_no_number, "is '"),
        (raises, r"malloc\(\) raised KeyError"),
        (is_unaligned, "no multiple of"),
        (is_elsewhere, "not within"),
        (refuses, "were refused"),
        (changes_bytes, "has changed"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_wrong_malloc_is_the_allocators_fault(malloc, told):
    wrong = type("Wrong", (bsa.Allocator,), {"malloc": malloc})
    with pytest.raises(AllocatorFault, match=rf"^step [01], \('malloc', 48\): .*{told}") as caught:
        run(("malloc", 48), ("malloc", 48), make_allocator=wrong)
    assert caught.value.step == ("malloc", 48)


@pytest.mark.parametrize(
    "name, replacement, told",
    [
        ("free", lambda self, address: None, "walk"),
        ("realloc", lambda self, address, size: address + 4096, "have become|raised"),
        ("stats", lambda self: None, "could not even be checked: AttributeError"),
        ("walk", lambda self: iter([]), "walk"),
        ("check", lambda self: 1 / 0, r"check\(\) raised ZeroDivisionError"),
        ("usable_size", lambda self, address: "many", "usable_size"),
        ("malloc_many", lambda self, count, size: 7, "could not even be checked: TypeError"),
        ("alloc", lambda self, size: bytearray(size), "no Block"),
        ("trim", lambda self: 99, "trim"),
        ("free_pages", property(lambda self: 5), "free_pages"),
        ("unusable_index", lambda self, order: 0.5, "unusable_index"),
        ("close", lambda self: None, "closed"),
    ],
)
def test_any_other_wrong_method_is_the_allocators_fault_too(name, replacement, told):
    wrong = type("Wrong", (bsa.Allocator,), {name: replacement})
    steps = ("malloc", 48), ("malloc_many", 3, 20), ("alloc", 10), ("realloc", 0, 100)
    with pytest.raises(AllocatorFault, match=told):
        run(*steps, ("free", 0), ("trim",), ("reopen",), make_allocator=wrong)


class Forgiving(bsa.Allocator):
    """Says nothing of wrong frees."""

    def free(self, address):
        try:
            super().free(address)
        except bsa.AllocError:
            pass


@pytest.mark.parametrize(
    "step", [("double_free", 1), ("free_inside", 0, 5), ("free_foreign", 0)], ids=lambda s: s[0]
)
def test_misuse_that_is_not_refused_is_the_allocators_fault(step):
    with pytest.raises(AllocatorFault, match="had to be refused"):
        run(("malloc", 48), ("malloc", 48), ("free", 1), step, make_allocator=Forgiving)


def test_an_allocator_that_cannot_be_made_is_at_fault():
    with pytest.raises(AllocatorFault, match=r"make_allocator\(\) raised TypeError"):
        run(make_allocator=lambda: None)


def test_an_allocator_that_is_none_is_at_fault():
    with pytest.raises(AllocatorFault, match=r"no method malloc\(\)"):
        run(make_allocator=lambda: None, setup={})


def test_what_is_left_at_the_end_is_a_fault():
    class Leaking(FirstFit):
        def merge(self):
            self.holes.clear()

    with pytest.raises(AllocatorFault, match="the end.*nothing is live"):
        run(("malloc", 500), make_allocator=Leaking, setup={})
    run(("malloc", 500), make_allocator=Leaking, setup={}, merges=False)


def test_an_address_elsewhere_is_not_touched():
    class Wild(bsa.testing.CAllocator):
        regions = [(0, 0)]

    with pytest.raises(AllocatorFault, match="not within"):
        run(("malloc", 8), make_allocator=Wild, setup={})

    class WildOnlyInRealloc(FirstFit):
        def realloc(self, address, size):
            return 1 << 50

    with pytest.raises(AllocatorFault, match="not within"):
        run(("malloc", 8), ("realloc", 0, 9), make_allocator=WildOnlyInRealloc, setup={})


def test_a_promise_to_serve_must_be_kept():
    class Promising(FirstFit):
        def must_serve(self, size):
            return size < 2000

    with pytest.raises(AllocatorFault, match="must_serve"):
        run(("malloc", 1500), make_allocator=Promising, setup={})


# --- other allocators


def test_the_malloc_of_this_process_passes():
    steps = ("malloc", 100), ("malloc", 0), ("malloc", 50, 4096), ("malloc", 70, None, True)
    run(*steps, ("realloc", 0, 5000), ("usable_size", 0), make_allocator=CAllocator, setup={})


def test_a_library_without_malloc_is_refused():
    with pytest.raises(AttributeError, match=r"xyz_malloc\(\)"):
        CAllocator(prefix="xyz_")


# --- without Hypothesis


def python(script):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
    )


def test_programs_need_no_hypothesis():
    done = python(
        """
        import sys
        sys.modules["hypothesis"] = None  # as if it were not installed
        import bsa.testing
        from bsa.testing import AllocatorFault, CAllocator, models, run_program
        run_program({"machine": "slab", "setup": {"cpus": 1}, "steps": []})
        for name in "AllocatorMachine", "strategies":
            try:
                getattr(bsa.testing, name)
            except ImportError as error:
                print(error)
        """
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines == [
        f"bsa.testing.{name} needs Hypothesis: pip install hypothesis"
        for name in ("AllocatorMachine", "strategies")
    ]


def test_importing_bsa_testing_imports_no_hypothesis():
    done = python("import sys, bsa.testing; sys.exit('hypothesis' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_listed():
    assert set(bsa.testing.__all__) <= set(dir(bsa.testing))
    with pytest.raises(AttributeError, match="nonsense"):
        bsa.testing.nonsense


# --- the page about it


def test_the_python_of_the_page_runs_as_shown():
    page = EXAMPLES.parent / "docs" / "testing.md"
    names = {"__name__": "__main__"}
    for line, needs, code in blocks(page, "python"):
        if needs is None or importlib.util.find_spec(needs) is not None:
            run_block(code, names, page, line)
    assert "FirstFit" in names
