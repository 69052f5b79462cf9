"""Blocks at the end: destructors, forks, other interpreters."""

import gc
import os
import sys
import weakref

import pytest

import bsa
from helpers import MIB, in_child

# --- destructors ---


def test_blocks_may_go_after_their_allocator_was_closed(make):
    heap = make(1 * MIB)
    blocks = [heap.alloc(100) for _ in range(10)]
    memoryview(blocks[0]).release()
    blocks[1].free()
    blocks[2].detach()
    heap.close()
    del blocks
    assert heap.closed


def test_a_block_may_go_in_a_thread_pinned_to_a_slot_that_does_not_exist(heap):
    with bsa.cpu(0):
        blocks = [heap.alloc(100), heap.alloc(10_000)]
    with bsa.cpu(1000):
        blocks.clear()
    assert len(heap) == 0


def test_a_pending_exception_survives_the_destructor(heap):
    def fail():
        block = heap.alloc(100)
        view = memoryview(block)[:10]
        view.release()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert sys.exc_info() == (None, None, None)


def test_a_pending_exception_survives_the_destructor_of_the_last_user_of_a_region():
    def fail():
        heap = bsa.Allocator(bytearray(1 * MIB))
        block = heap.alloc(100)
        memoryview(block).release()
        heap.close()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()


def test_blocks_in_garbage_are_freed(heap):
    cycle = [heap.alloc(100)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert len(heap) == 0


def test_releasing_a_region_may_run_code_that_makes_blocks(heap):
    class Memory(bytearray):
        pass

    def make_block(reference):
        kept.append(heap.alloc(100))

    kept = []
    memory = Memory(1 * MIB)
    watch = weakref.ref(memory, make_block)
    block = bsa.Allocator(memory).alloc(10)
    memoryview(block).release()
    del memory
    assert watch() is not None
    del block
    assert watch() is None and len(kept) == 1


@pytest.mark.parametrize(
    "script",
    [
        "block = heap.alloc(100)",
        "block = heap.alloc(100); view = memoryview(block)",
        "import sys; sys.keep = [heap.alloc(100), memoryview(heap.alloc(10))]",
        "cycle = [heap.alloc(100)]; cycle.append(cycle)",
        "inner = bsa.Allocator(heap.alloc(100_000)); block = inner.alloc(10)",
        "import threading; threading.local().block = heap.alloc(10)",
        "import atexit; block = heap.alloc(10); atexit.register(block.free)",
        "block = heap.alloc(10); memoryview(block).release(); heap.close()",
        "import gc; gc.disable(); cycle = [heap, heap.alloc(10)]; cycle.append(cycle); del heap",
    ],
)
def test_the_interpreter_may_shut_down_with_live_blocks(script):
    assert in_child(f"import bsa\nheap = bsa.Allocator(1 << 20)\n{script}\nprint('ok')") == "ok\n"


# --- fork ---

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

IN_FORKED_CHILD = """
import mmap, os, warnings
import bsa
warnings.simplefilter("ignore")
{before}
pid = os.fork()
if pid == 0:
    try:
        {child}
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
{after}
"""


def forked(before, child, after="heap.check()"):
    in_child(IN_FORKED_CHILD.format(before=before, child=child, after=after))


@needs_fork
@pytest.mark.parametrize(
    "memory", ["1 << 20", "bytearray(1 << 20)", "mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE)"]
)
def test_an_allocator_over_private_memory_works_in_a_forked_child(memory):
    forked(
        f"heap = bsa.Allocator({memory}); block = heap.alloc_from(b'hello'); raw = heap.malloc(10)",
        "assert block[:] == b'hello'; block[:] = b'child'; block.free(); heap.free(raw); "
        "heap.alloc(100_000); heap.check(); assert len(heap) == 0; heap.close()",
        "assert block[:] == b'hello' and len(heap) == 2; heap.check()",
    )


@needs_fork
@pytest.mark.parametrize("operation", ["heap.alloc(10)", "heap.free(raw)", "len(heap)", "block[0]"])
def test_an_allocator_over_shared_memory_is_inert_in_a_forked_child(operation):
    forked(
        "heap = bsa.Allocator(mmap.mmap(-1, 1 << 20)); block = heap.alloc(10); raw = heap.malloc(9)",
        f"""
        try:
            {operation}
        except bsa.AllocError:
            os._exit(2)
        except RuntimeError:
            os._exit(0)
        os._exit(3)
        """.strip().replace(
            "\n        ", "\n        "
        ),
        "assert len(heap) == 2; heap.check()",
    )


@needs_fork
def test_destructors_do_nothing_to_shared_memory_in_a_forked_child():
    forked(
        "heap = bsa.Allocator(mmap.mmap(-1, 1 << 20)); blocks = [heap.alloc(10) for _ in range(9)]\n"
        "memoryview(blocks[0]).release()",
        "blocks.clear()",
        "assert len(heap) == 9 and len(list(heap.walk())) == 9; heap.check()",
    )


@needs_fork
def test_an_inert_allocator_can_be_closed():
    forked(
        "heap = bsa.Allocator(mmap.mmap(-1, 1 << 20)); block = heap.alloc(10)",
        "heap.close(); assert heap.closed and block.freed",
        "assert len(heap) == 1; block[0] = 1; heap.check()",
    )


@needs_fork
def test_a_heap_nested_in_shared_memory_is_inert_in_a_forked_child():
    forked(
        "outer = bsa.Allocator(mmap.mmap(-1, 1 << 20)); heap = bsa.Allocator(outer.alloc(1 << 18))",
        """
        try:
            heap.alloc(10)
        except RuntimeError:
            os._exit(0)
        os._exit(3)
        """.strip(),
        "heap.check(); outer.check()",
    )


# --- subinterpreters ---

IN_SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import bsa
heap = bsa.Allocator(1 << 20)
block = heap.alloc(10)
script = '''
import bsa
heap = bsa.Allocator(1 << 20)
keep = [heap.alloc(10), memoryview(heap.alloc(10))]
heap.check()
'''
for _ in range(3):
    try:
        other = interpreters.create("legacy")
    except TypeError:
        other = interpreters.create(isolated=False)
    failure = interpreters.run_string(other, script)
    assert failure is None, failure
    interpreters.destroy(other)
block.free()
heap.check()
print("ok")
"""


def test_an_allocator_works_in_a_subinterpreter():
    try:
        printed = in_child(IN_SUBINTERPRETER)
    except AssertionError as error:
        if "ModuleNotFoundError" in str(error):
            pytest.skip("no subinterpreters")
        raise
    assert printed == "ok\n"
