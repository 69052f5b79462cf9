"""The end of an interpreter, wherever it comes, and interpreters beside the main one."""

import importlib
import os
import subprocess
import sys
import textwrap

import pytest


def run(script, *options):
    """Runs the script in a Python of its own, which must end well and without a word of complaint."""
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=120,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


# --- shutdown with things still alive ---

LEFTOVERS = {
    "a global allocator with everything in it": """
        heap = bsa.Allocator(1 << 20)
        block, pages = heap.alloc(100), heap.alloc_pages(3)
        view = memoryview(block)
        address = heap.malloc(64)
        section, slab, walk, stats = heap.sections[0], heap.slabs()[0], heap.walk(), heap.stats()
        next(walk)
    """,
    "a parked block and views of views": """
        heap = bsa.Allocator(bytearray(1 << 20))
        parked = heap.alloc(5000)
        memoryview(parked).release()
        parked.free()
        block = heap.alloc(100)
        view = memoryview(block)[10:20].cast("B")[::2]
    """,
    "a block in a cycle": """
        cycle = [bsa.Allocator(1 << 20).alloc(100)]
        cycle.append(cycle)
        del cycle
    """,
    "a cycle through the callback": """
        heap = bsa.Allocator(1 << 20)
        heap.on_oom = lambda allocator, nbytes: heap.free(0)
        heap.add_region(1 << 20, phys=lambda address: heap.page_size)
        block = heap.alloc(10)
    """,
    "a buffer that owns its allocator": """
        class Buffer(bytearray):
            pass
        buffer = Buffer(1 << 20)
        buffer.heap = bsa.Allocator(buffer)
        buffer.block = buffer.heap.alloc(10)
        buffer.view = memoryview(buffer.block)
        del buffer
    """,
    "an allocator inside a block": """
        outer = bsa.Allocator(1 << 20)
        inner = bsa.Allocator(outer.alloc(1 << 18))
        block = inner.alloc(100)
        view = memoryview(block)
    """,
    "a closed allocator with an exported block": """
        heap = bsa.Allocator(1 << 20)
        block = heap.alloc(10)
        memoryview(block).release()
        heap.close()
    """,
    "blocks in the namespaces of modules": """
        import builtins, types
        heap = bsa.Allocator(1 << 20)
        sys.modules["leftover"] = module = types.ModuleType("leftover")
        module.block, module.self = heap.alloc(10), module
        bsa._core.block = heap.alloc(10)
        bsa.block = heap.alloc(10)
        sys.block = heap.alloc(10)
        builtins.block = heap.alloc(10)
        del heap
    """,
    "a module that sys.modules has lost": """
        heap = bsa.Allocator(1 << 20)
        block = heap.alloc(10)
        for name in [name for name in sys.modules if name.partition(".")[0] == "bsa"]:
            del sys.modules[name]
        del bsa
    """,
    "a traceback that holds a block": """
        def fail():
            block = bsa.Allocator(1 << 20).alloc(10)
            view = memoryview(block)
            block.free()
        try:
            fail()
        except bsa.InUseError as error:
            sys.last_error = error
    """,
    "blocks that only a foreign object holds": """
        import ctypes
        heap = bsa.Allocator(1 << 20)
        kept = (ctypes.c_char * 100).from_buffer(heap.alloc(100))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(heap.alloc(10)))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(heap))
    """,
    "more dead blocks than are kept for reuse": """
        heap = bsa.Allocator(1 << 20)
        blocks = [heap.alloc(10) for _ in range(500)]
        sys.blocks = blocks[:250]
    """,
    "a thread that is still at work": """
        import threading
        heap = bsa.Allocator(1 << 20)
        def work():
            while True:
                heap.check()
                heap.alloc(100)
        threading.Thread(target=work, daemon=True).start()
        for _ in range(3):
            heap.alloc(10)
    """,
}


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_an_interpreter_shuts_down_quietly_with(leftover):
    script = "import bsa, sys\n" + textwrap.dedent(LEFTOVERS[leftover]) + "\nprint('end')"
    assert run(script) == "end\n"
    assert run(script, "-X", "dev", "-W", "ignore") == "end\n"


def test_a_heap_works_in_functions_called_at_exit():
    script = """
        import atexit, bsa
        heap = bsa.Allocator(1 << 20)
        block = heap.alloc_from(b"kept")
        @atexit.register
        def last():
            print(block[:], heap.alloc(10).size, len(heap))
            heap.check()
            heap.close()
    """
    assert run(script) == "b'kept' 10 1\n"


def test_finalizers_at_the_end_may_use_a_heap_that_they_hold():
    script = """
        import bsa
        class Last:
            def __init__(self):
                self.heap = bsa.Allocator(1 << 20)
                self.block = self.heap.alloc(10)
            def __del__(self):
                self.heap.alloc(10).free()
                self.heap.check()
                print(len(self.heap), self.block.freed)
        last = Last()
        in_a_cycle = Last()
        in_a_cycle.self = in_a_cycle
    """
    assert run(script) == "1 False\n" * 2


def test_finalizers_that_run_after_the_module_has_been_cleared_cannot_crash():
    # Without slots the object is none of the collector's, so that its finalizer runs among the
    # clearing of what it holds.
    script = """
        import bsa, gc, sys
        class Late:
            __slots__ = ()
            def __del__(self, heap=bsa.Allocator(1 << 20), Error=Exception):
                for action in (
                    lambda: heap.alloc(10),
                    lambda: heap.malloc(1 << 40),
                    lambda: heap.free(1),
                    lambda: heap.free("a"),
                    lambda: heap.sections,
                    lambda: list(heap.walk()),
                    lambda: heap.stats(),
                    lambda: heap.slabs(),
                    lambda: heap.check(),
                    lambda: heap.remove_region(heap),
                    lambda: heap.close(),
                    lambda: heap.malloc(1),
                ):
                    try:
                        action()
                    except Error:
                        pass
        bsa._core.late = Late()
        bsa.late = Late()
        sys.late = Late()
        kept = [Late()]
        kept.append(kept)
        late = Late()
        print('end')
    """
    assert run(script) == "end\n"


def test_finalizers_of_a_discarded_module_cannot_crash():
    script = """
        import gc, sys
        import bsa
        class Late:
            __slots__ = ()
            def __del__(self, heap=bsa.Allocator(1 << 20), Error=Exception):
                for action in (
                    lambda: heap.alloc(10),
                    lambda: heap.free(1),
                    lambda: heap.stats(),
                    lambda: list(heap.walk()),
                    lambda: heap.sections,
                    lambda: heap.slabs(),
                    lambda: heap.malloc(1 << 40),
                ):
                    try:
                        action()
                    except Error:
                        pass
        for number in range(20):
            cycle = [[], Late(), bsa._core] if number % 2 else [bsa._core, Late(), []]
            cycle.append(cycle)
        del cycle, Late, bsa
        for name in [name for name in sys.modules if name.partition(".")[0] == "bsa"]:
            del sys.modules[name]
        gc.collect()
        gc.collect()
        print('end')
    """
    assert run(script) == "end\n"


def test_a_buffer_that_owns_an_exported_block_of_a_closed_heap_in_it_is_collected():
    script = """
        import bsa, gc, weakref
        class Buffer(bytearray):
            pass
        for close in (False, True):
            buffer = Buffer(1 << 20)
            heap = bsa.Allocator(buffer)
            buffer.block = heap.alloc(100)
            memoryview(buffer.block).release()
            if close:
                heap.close()
            buffer = weakref.ref(buffer)
            del heap
            gc.collect()
            print(buffer() is None)
    """
    assert run(script) == "True\nTrue\n"


# --- importing again ---


def test_a_second_import_has_types_of_its_own_and_the_first_ones_go_on():
    script = """
        import sys
        import bsa as first
        heap = first.Allocator(1 << 20)
        block = heap.alloc(10)
        for name in [name for name in sys.modules if name.partition(".")[0] == "bsa"]:
            del sys.modules[name]
        import bsa as second
        assert second.Allocator is not first.Allocator
        with second.Allocator(1 << 20) as other:
            try:
                other.free(block)
            except TypeError:
                print("refused")
            assert len(other) == 0
        try:
            heap.free(1)
        except first.NotFoundError:
            print("an error of its own")
        heap.check()
    """
    assert run(script) == "refused\nan error of its own\n"


def test_a_region_of_the_first_import_is_managed_for_the_second_too():
    script = """
        import sys
        import bsa as first
        buffer = bytearray(1 << 20)
        heap = first.Allocator(buffer)
        for name in [name for name in sys.modules if name.partition(".")[0] == "bsa"]:
            del sys.modules[name]
        import bsa as second
        try:
            second.Allocator(buffer)
        except second.MemoryOverlapError:
            print("refused")
    """
    assert run(script) == "refused\n"


# --- interpreters beside the main one ---

# run() says what the script has raised in the other interpreter, or None.
PROLOGUE = """
import sys
try:
    import _interpreters as low
except ImportError:
    import _xxsubinterpreters as low

class Interpreter:
    def __init__(self, isolated=False):
        if sys.version_info >= (3, 13):
            self.id = low.create("isolated" if isolated else "legacy")
        else:
            self.id = low.create(isolated=isolated)

    def run(self, script):
        try:
            raised = low.run_string(self.id, script)
        except Exception as error:
            raised = error
        return raised

    def must(self, script):
        raised = self.run(script)
        assert raised is None, raised

    def destroy(self):
        low.destroy(self.id)
"""


def has_interpreters():
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        return True
    return False


needs_interpreters = pytest.mark.skipif(not has_interpreters(), reason="no subinterpreters")


def run_with_interpreters(script):
    return run(PROLOGUE + textwrap.dedent(script))


@needs_interpreters
def test_a_subinterpreter_has_a_bsa_of_its_own():
    script = """
        import bsa
        heap = bsa.Allocator(1 << 20)
        block = heap.alloc(10)
        other = Interpreter()
        other.must('''if True:
            import bsa
            heap = bsa.Allocator(1 << 20)
            block = heap.alloc_from(b"other")
            assert block[:] == b"other"
            address = heap.malloc(100)
            heap.free(address)
            for wrong, error in [
                (lambda: heap.free(address), bsa.NotAllocatedError),
                (lambda: heap.free(1), bsa.NotFoundError),
                (lambda: heap.malloc(-1), bsa.InvalidParamError),
                (lambda: heap.malloc(1 << 40), bsa.OutOfMemoryError),
            ]:
                try:
                    wrong()
                except error:
                    pass
                else:
                    raise AssertionError(error)
            heap.check()
        ''')
        other.destroy()
        heap.check()
        assert block.freed is False
        print(len(heap))
    """
    assert run_with_interpreters(script) == "1\n"


@needs_interpreters
def test_subinterpreters_come_and_go_with_things_alive():
    script = """
        import bsa
        for number in range(10):
            other = Interpreter()
            other.must('''if True:
                import bsa, sys
                heap = bsa.Allocator(1 << 20)
                block = heap.alloc(10)
                view = memoryview(block)
                cycle = [heap.alloc(20)]
                cycle.append(cycle)
                heap.on_oom = lambda allocator, nbytes: heap
                bsa._core.block = heap.alloc(30)
                sys.block = heap.alloc(40)
                blocks = [heap.alloc(10) for _ in range(200)]
            ''')
            other.destroy()
        with bsa.Allocator(1 << 20) as heap:
            heap.alloc(10)
        print("end")
    """
    assert run_with_interpreters(script) == "end\n"


@needs_interpreters
def test_the_blocks_of_subinterpreters_go_though_the_module_leads_to_them():
    script = """
        import bsa

        def pages():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[0])

        def come_and_go():
            other = Interpreter()
            other.must('''if True:
                import bsa
                block = bsa.Allocator(1 << 28).alloc(10)
                bsa.OutOfMemoryError.__str__ = lambda error: repr(block)
            ''')
            other.destroy()

        come_and_go()
        before = pages()
        for _ in range(3):
            come_and_go()
        print((pages() - before) * 4096 >> 28)
    """
    assert run_with_interpreters(script) == "0\n"


@needs_interpreters
def test_a_subinterpreter_that_is_never_destroyed_ends_with_the_process():
    script = """
        import bsa
        other = Interpreter()
        other.must("import bsa; heap = bsa.Allocator(1 << 20); block = heap.alloc(10)")
        print("end")
    """
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + textwrap.dedent(script)], capture_output=True, text=True
    )
    assert (done.stdout, done.returncode) == ("end\n", 0)  # from 3.14 on Python warns


@needs_interpreters
def test_a_region_managed_in_one_interpreter_is_refused_in_another():
    script = """
        import bsa, ctypes
        buffer = bytearray(1 << 20)
        heap = bsa.Allocator(buffer)
        address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        attempt = f'''if True:
            import bsa, ctypes
            same = (ctypes.c_char * 65536).from_address({address})
            try:
                bsa.Allocator(same)
            except bsa.MemoryOverlapError:
                pass
            else:
                raise AssertionError("two manage one region")
        '''
        other = Interpreter()
        other.must(attempt)
        heap.close()
        assert other.run(attempt) is not None  # now it is accepted
        other.destroy()
        print("end")
    """
    assert run_with_interpreters(script) == "end\n"


@needs_interpreters
def test_a_region_inside_a_block_of_another_interpreter_is_refused():
    script = """
        import bsa
        heap = bsa.Allocator(1 << 20)
        block = heap.alloc(1 << 18)
        other = Interpreter()
        other.must(f'''if True:
            import bsa, ctypes
            try:
                bsa.Allocator((ctypes.c_char * (1 << 17)).from_address({block.address}))
            except bsa.MemoryOverlapError:
                pass
            else:
                raise AssertionError("accepted")
        ''')
        other.destroy()
        block.free()
        print(len(heap))
    """
    assert run_with_interpreters(script) == "0\n"


@needs_interpreters
def test_an_interpreter_with_a_gil_of_its_own_either_works_or_refuses_the_import():
    script = """
        import bsa
        heap = bsa.Allocator(1 << 20)
        other = Interpreter(isolated=True)
        other.must('''if True:
            try:
                import bsa
            except ImportError:
                pass
            else:
                heap = bsa.Allocator(1 << 20)
                block = heap.alloc(10)
                heap.check()
        ''')
        other.destroy()
        heap.check()
        print("end")
    """
    assert run_with_interpreters(script) == "end\n"


@needs_interpreters
def test_pins_belong_to_threads_not_to_interpreters():
    script = """
        import bsa
        other = Interpreter()
        with bsa.cpu(3):
            other.must("import bsa; assert bsa.current_cpu() == 3")
        other.destroy()
        print("end")
    """
    assert run_with_interpreters(script) == "end\n"
