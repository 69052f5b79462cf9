"""bsa.testing without Hypothesis: programs, and whose fault it is."""

import ast
import ctypes
import importlib.util
import inspect
import pathlib
import runpy
import signal
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
        (("malloc", 8, 3), "align is 3"),
        (("malloc", 8, 0), "align is 0"),
        (("malloc", -1), "size is -1"),
        (("malloc", "8"), "size is '8'"),
        (("malloc", 8.0), "size is 8.0"),
        (("free_many", 0), "handles is 0"),
        (("on_oom", "sing"), "no such answer: 'sing'"),
        (("nest", 0, 8), "handle 0"),
    ],
)
def test_a_step_that_cannot_be_done_is_the_programs_error(step, told):
    with pytest.raises(ProgramError, match=f"step 0.*{told}"):
        run(step)


@pytest.mark.parametrize(
    "program, told",
    [
        ({"setup": {}, "steps": []}, "no 'machine'"),
        ({"machine": "allocator", "steps": []}, "no 'setup'"),
        ({"machine": "allocator", "setup": {}}, "no 'steps'"),
        ({"machine": "slab", "setup": {}, "steps": [], "flags": {"has_luck": 1}}, "'has_luck'"),
        ({"machine": "slab", "setup": {"cpu": 2}, "steps": []}, "'cpu'"),
    ],
)
def test_a_program_with_a_wrong_key_is_the_programs_error(program, told):
    with pytest.raises(ProgramError, match=told):
        run_program(program)


@pytest.mark.parametrize(
    "step, told",
    [
        (("malloc", 8, 16), "has_alignment"),
        (("malloc", 8, None, True), "has_zero"),
        (("realloc", 0, 8), "has_realloc"),
        (("usable_size", 0), "has_usable_size"),
        (("malloc_many", 2, 8), "has_bulk"),
        (("free_many", [0]), "has_bulk"),
    ],
)
def test_a_step_that_the_allocator_has_no_method_for_is_the_programs_error(step, told):
    with pytest.raises(ProgramError, match=f"step 1.*{told}"):
        run(("malloc", 8), step, make_allocator=FirstFit, setup={})


def test_a_program_is_there_when_a_step_has_ended_the_process(tmp_path, monkeypatch):
    monkeypatch.setenv("BSA_TESTING_LOG", str(tmp_path / "log"))
    done = python(
        """
        import os, bsa
        from bsa.testing import run_program

        class Deadly(bsa.Allocator):
            def malloc(self, size, **options):
                return os.abort() if size == 7 else super().malloc(size, **options)

        setup = {"page_size": 4096, "cpus": 1, "regions": [(0, 100000, None)]}
        steps = [("malloc", 8), ("free", 0), ("malloc", 7), ("malloc", 9)]
        run_program({"machine": "allocator", "setup": setup, "steps": steps}, Deadly)
        """
    )
    assert done.returncode == -signal.SIGABRT, done.stderr
    program = ast.literal_eval((tmp_path / "log").read_text())
    assert program["steps"] == [("malloc", 8), ("free", 0), ("malloc", 7)]
    run_program(program)


def test_a_log_that_cannot_be_written_is_not_the_allocators_fault(tmp_path, monkeypatch):
    monkeypatch.setenv("BSA_TESTING_LOG", str(tmp_path))
    with pytest.raises(ProgramError, match="BSA_TESTING_LOG"):
        run(("malloc", 8))


@pytest.mark.parametrize("machine", ["allocator", "buddy", "slab"])
@pytest.mark.parametrize("setup", [{}, {"cpus": 1, "regions": []}])
def test_no_memory_to_ask_for_is_the_programs_error(machine, setup):
    with pytest.raises(ProgramError, match='step 0.*has no "regions"'):
        run(("malloc", 5000), machine=machine, setup=setup)
    run(("extend", 0, 100000), ("malloc", 5000), machine=machine, setup=setup)


def test_an_allocator_may_have_memory_of_its_own():
    run(("malloc", 8), make_allocator=lambda: bsa.Allocator(100000, cpus=1), setup={})


def test_a_block_without_room_for_a_heap_is_the_programs_error():
    with pytest.raises(ProgramError, match="step 1.*no room"):
        run(("alloc", 100), ("nest", 0, 8))


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
        ("reset_peak", lambda self: None, "peaks"),
    ],
)
def test_any_other_wrong_method_is_the_allocators_fault_too(name, replacement, told):
    wrong = type("Wrong", (bsa.Allocator,), {name: replacement})
    steps = ("malloc", 48), ("malloc_many", 3, 20), ("alloc", 10), ("realloc", 0, 100)
    steps += ("free", 0), ("trim",), ("reset_peak",), ("reopen",)
    with pytest.raises(AllocatorFault, match=told):
        run(*steps, make_allocator=wrong)


# --- on_oom

FULL = ("limit", 0), ("on_oom", "refuse"), ("malloc", 100)


def asks(*answers):
    """An allocator that does something with on_oom when a request has failed."""

    class Asking(bsa.Allocator):
        def malloc(self, size, *arguments, **options):
            try:
                return super().malloc(size, *arguments, **options)
            except MemoryError:
                for answer in answers if size == 100 else ():
                    answer(self)
                raise

    return Asking


class Mute(bsa.Allocator):
    """Never asks on_oom."""

    on_oom = None


class Nagging(bsa.Allocator):
    """Asks on_oom also where on_oom itself asks for too much."""

    def malloc(self, size, *arguments, **options):
        try:
            return super().malloc(size, *arguments, **options)
        except MemoryError:
            if size != 100:
                self.on_oom(self, size)
            raise


class Stubborn(bsa.Allocator):
    """Serves though on_oom has refused."""

    def malloc(self, size, *arguments, **options):
        try:
            return super().malloc(size, *arguments, **options)
        except MemoryError:
            self.limit = None
            return super().malloc(size, *arguments, **options)


@pytest.mark.parametrize(
    "wrong, told",
    [
        (Mute, "on_oom was not asked"),
        (asks(lambda heap: heap.on_oom(heap, 100)), "asked again, and has said no"),
        (Nagging, "from within itself"),
        (asks(lambda heap: heap.on_oom(heap, 99)), "bytes that on_oom is told is 99"),
        (asks(lambda heap: heap.on_oom(None, 100)), "on_oom is given None"),
        (Stubborn, "whether it was served"),
    ],
)
def test_an_on_oom_asked_wrongly_is_the_allocators_fault(wrong, told):
    with pytest.raises(AllocatorFault, match=told):
        run(*FULL, make_allocator=wrong)


def test_an_on_oom_asked_where_nothing_fails_is_the_allocators_fault():
    class Chatty(bsa.Allocator):
        def trim(self):
            if self.on_oom is not None:
                self.on_oom(self, 8)
            return super().trim()

    with pytest.raises(AllocatorFault, match="no request can have failed"):
        run(("on_oom", "refuse"), ("trim",), make_allocator=Chatty)


def test_what_on_oom_raises_must_come_through():
    class Swallowing(bsa.Allocator):
        def malloc(self, size, *arguments, **options):
            try:
                return super().malloc(size, *arguments, **options)
            except Exception:
                raise bsa.OutOfMemoryError from None

    with pytest.raises(AllocatorFault, match=r"malloc\(\) raised OutOfMemoryError"):
        run(("limit", 0), ("on_oom", "fail"), ("malloc", 100), make_allocator=Swallowing)


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


@pytest.mark.parametrize(
    "usable, told",
    [
        (lambda self, address: 10.0, "is 10.0"),
        (lambda self, address: 9, "is 9"),
        (lambda self, address: 5000, "not within"),
        (lambda self, address: 11, "overlap"),
    ],
)
def test_a_wrong_usable_size_is_the_allocators_fault(usable, told):
    wrong = type("Wrong", (FirstFit,), {"usable_size": usable, "regions": [(0, 1024)]})
    with pytest.raises(AllocatorFault, match=f"usable_size.*{told}"):
        run(("malloc", 10), ("malloc", 10), ("usable_size", 0), make_allocator=wrong, setup={})
    right = type("Right", (wrong,), {"usable_size": lambda self, address: 10})
    run(("malloc", 10), ("malloc", 10), ("usable_size", 0), make_allocator=right, setup={})


class Refusing(FirstFit):
    """Has forgotten to return what it has."""

    def malloc(self, size):
        super().malloc(size)


@pytest.mark.parametrize("merges", [True, False])
def test_an_allocator_that_serves_nothing_is_at_fault(merges):
    with pytest.raises(AllocatorFault, match="nothing is live, and 1 byte is refused"):
        run(("malloc", 8), make_allocator=Refusing, setup={}, merges=merges)


def test_to_refuse_everything_may_be_right():
    run(make_allocator=Refusing, setup={})  # was asked for nothing
    run(("malloc", 1 << 60), make_allocator=FirstFit, setup={})
    full = type("Full", (Refusing,), {"must_serve": lambda self, size: False})
    run(("malloc", 8), make_allocator=full, setup={})


# --- other allocators


def test_the_malloc_of_this_process_passes():
    steps = ("malloc", 100), ("malloc", 0), ("malloc", 50, 4096), ("malloc", 70, None, True)
    run(*steps, ("realloc", 0, 5000), ("usable_size", 0), make_allocator=CAllocator, setup={})


class Library(ctypes.CDLL):
    """The C library with some functions only."""

    names = ("malloc", "free")

    def __init__(self, *more):
        super().__init__(None)
        self.names += more

    def __getattr__(self, name):
        if name not in self.names:
            raise AttributeError(name)
        return super().__getattr__(name)


@pytest.mark.parametrize(
    "more, parameters",
    [
        ((), ["size"]),
        (("aligned_alloc",), ["size", "align"]),
        (("calloc",), ["size", "zero"]),
        (("aligned_alloc", "calloc"), ["size", "align", "zero"]),
    ],
)
def test_malloc_of_a_library_takes_what_the_library_has(more, parameters):
    allocator = CAllocator(Library(*more))
    assert list(inspect.signature(allocator.malloc).parameters) == parameters
    steps = [("malloc", 100)]
    steps += [("malloc", 100, 4096)] if "align" in parameters else []
    steps += [("malloc", 3000, None, True)] if "zero" in parameters else []
    run(*steps, make_allocator=lambda: CAllocator(Library(*more)), setup={})
    with pytest.raises(TypeError):
        allocator.malloc(8, None, False, 7)


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
