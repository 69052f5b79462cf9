"""Threads that do everything at once, to each other's memory: with the GIL, without it, under ThreadSanitizer.

Each piece of memory carries a tag that only its holder knows. Whatever threads do, no byte is ever in two hands, nothing
is lost, and what may succeed only once does so once.
"""

import ctypes
import gc
import importlib.util
import itertools
import os
import queue
import random
import sys
import sysconfig
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import in_child

import bsa

IS_SANITIZED = "libtsan" in os.environ.get("LD_PRELOAD", "")
ROUNDS = 300 if IS_SANITIZED else 3000


@pytest.fixture(autouse=True)
def hasty():
    """Where there is a GIL, threads take turns far more often than usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def in_threads(*functions):
    """Runs each function in a thread of its own, all at once; what they returned."""
    barrier = threading.Barrier(len(functions))

    def run(function):
        barrier.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(run, f) for f in functions]]


def outcome(function, *expected):
    """What the function returned, or the type of the exception, which is one of those expected."""
    try:
        return function()
    except expected as error:
        return type(error)


# --- the stress ---

SIZES = [1, 8, 16, 24, 64, 100, 256, 300, 1000, 2048, 2049, 5000, 20_000, 70_000]


class Raw:
    """A raw allocation, tagged."""

    def __init__(self, heap, address, size):
        self.heap, self.address, self.tag = heap, address, random.randbytes(min(size, 16))
        ctypes.memmove(address, self.tag, len(self.tag))

    def check(self):
        assert ctypes.string_at(self.address, len(self.tag)) == self.tag

    def give_back(self, rng):
        self.check()
        action = rng.randrange(4)
        if action == 0:
            self.heap.free_many([self.address])
        elif action == 1:
            self.heap.block(self.address)  # dropped at once
        elif action == 2:
            self.heap.free(self.heap.realloc(self.address, rng.choice(SIZES)))
        else:
            self.heap.free(self.address)


class Owned:
    """A Block, tagged; now and then with a view."""

    def __init__(self, block, rng):
        self.block, self.tag = block, random.randbytes(min(len(block), 16))
        block[: len(self.tag)] = self.tag
        self.view = memoryview(block) if rng.randrange(3) == 0 else None

    def check(self):
        assert self.block[: len(self.tag)] == self.tag
        if self.view is not None:
            assert self.view[: len(self.tag)] == self.tag

    def give_back(self, rng):
        self.check()
        if self.view is not None:
            with pytest.raises(bsa.InUseError):
                self.block.free()
            self.view.release()
        elif rng.randrange(4) == 0:
            self.block.allocator.free(self.block.detach())
            return
        if rng.randrange(2) == 0:
            self.block.resize(rng.choice(SIZES))
            assert self.block[: len(self.tag)] == self.tag[: len(self.block)]
        if rng.randrange(2) == 0:
            self.block.free()


def acquire(heap, rng):
    kind, size = rng.randrange(5), rng.choice(SIZES)
    if kind == 0:
        return Owned(heap.alloc(size), rng)
    if kind == 1:
        return Owned(heap.alloc_pages(rng.randrange(1, 6), exact=True), rng)
    if kind == 2:
        return Owned(heap.alloc_from(bytes(size)), rng)
    return Raw(heap, heap.malloc(size, zero=kind == 3), size)


def work(heap, seed, mailbox):
    """Takes, hands over, receives and gives back; holds nothing at the end."""
    rng, held = random.Random(seed), []
    for _ in range(ROUNDS):
        action = rng.randrange(10)
        if action < 4:
            held.append(acquire(heap, rng))
        elif action < 7 and held:
            mailbox.put(held.pop(rng.randrange(len(held))))
            with_luck = outcome(mailbox.get_nowait, queue.Empty)
            if with_luck is not queue.Empty:
                with_luck.check()
                held.append(with_luck)
        elif held:
            held.pop(rng.randrange(len(held))).give_back(rng)
    for piece in held:
        piece.give_back(rng)


def look_around(heap, finished):
    while not finished.is_set():
        assert heap.free_pages <= heap.total_pages
        stats = heap.stats()
        assert stats.current_count <= stats.total_count
        for address, usable, _ in heap.walk():
            assert heap.section_of(address).start <= address
            assert usable >= 8
        assert all(slab.free_count <= slab.capacity for slab in heap.slabs())
        assert heap.sections[0] is heap.sections[0]
        repr(heap), heap.free_blocks(), heap.largest_free, heap.requested_bytes, len(heap)


def check_and_trim(heap, finished):
    while not finished.is_set():
        heap.check()
        heap.trim()


def add_and_remove(heap, finished):
    while not finished.is_set():
        section = heap.add_region(bytearray(200_000))
        repr(section), section.page_states(), section.free_blocks(), section.buffer
        while outcome(lambda: heap.remove_region(section), bsa.InUseError) is not None:
            if finished.is_set():
                return


def test_threads_that_do_everything_at_once_never_share_a_byte_and_lose_none():
    with bsa.Allocator(64 << 20, cpus=8) as heap:
        mailbox, finished = queue.SimpleQueue(), threading.Event()

        def all_workers():
            try:
                in_threads(*[lambda seed=seed: work(heap, seed, mailbox) for seed in range(5)])
            finally:
                finished.set()

        in_threads(
            all_workers,
            *[lambda f=f: f(heap, finished) for f in (look_around, check_and_trim, add_and_remove)],
        )
        rng = random.Random(0)
        while not mailbox.empty():
            mailbox.get().give_back(rng)
        gc.collect()
        heap.check()
        assert len(heap) == 0
        assert heap.stats().parked_bytes == 0
        heap.trim()
        assert heap.free_pages == heap.total_pages


# --- what can succeed only once ---


def successes(*results):
    return sum(result is None for result in results)


@pytest.mark.parametrize("size", [64, 10_000])
def test_of_all_threads_that_free_an_address_one_succeeds(size):
    with bsa.Allocator(1 << 20) as heap:
        for _ in range(ROUNDS // 10):
            address = heap.malloc(size)
            results = in_threads(
                *[lambda: outcome(lambda: heap.free(address), bsa.NotAllocatedError, ValueError)]
                * 3
            )
            assert successes(*results) == 1
        heap.check()


@pytest.mark.parametrize("is_exported", [False, True])
def test_of_all_threads_that_free_a_block_one_succeeds(is_exported):
    with bsa.Allocator(1 << 20) as heap:
        for _ in range(ROUNDS // 10):
            block = heap.alloc(100)
            if is_exported:
                memoryview(block).release()
            results = in_threads(*[lambda: outcome(block.free, bsa.NotAllocatedError)] * 3)
            assert successes(*results) == 1
            assert block.freed
        heap.check()


def test_a_block_is_freed_or_viewed_but_not_both():
    with bsa.Allocator(1 << 20) as heap:
        for _ in range(ROUNDS // 5):
            block = heap.alloc(100)
            block[:] = b"x" * 100
            freed, view = in_threads(
                lambda: outcome(block.free, bsa.InUseError),
                lambda: outcome(lambda: memoryview(block), ValueError),
            )
            if isinstance(view, memoryview):
                assert view == b"x" * 100
                view.release()
            else:
                assert freed is None
        heap.check()


def test_a_resize_and_a_free_at_once_leave_the_block_whole():
    with bsa.Allocator(1 << 20) as heap:
        for _ in range(ROUNDS // 5):
            block = heap.alloc(100)
            in_threads(
                lambda: outcome(lambda: block.resize(5000), bsa.NotAllocatedError, bsa.InUseError),
                lambda: outcome(block.free, bsa.NotAllocatedError, bsa.InUseError),
            )
            assert block.freed or len(block) in (100, 5000)
            heap.check()
        block = None
        assert len(heap) == 0


def test_of_two_allocators_that_want_the_same_memory_one_gets_it():
    memory = bytearray(1 << 16)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    array_type = ctypes.c_char * len(memory)
    for _ in range(ROUNDS // 5):

        def make():  # over a buffer of its own: exporting is not safe for every exporter everywhere
            buffer = array_type.from_address(address)
            return outcome(lambda: bsa.Allocator(buffer), bsa.MemoryOverlapError)

        results = in_threads(make, make, make)
        assert results.count(bsa.MemoryOverlapError) == 2
        next(r for r in results if r is not bsa.MemoryOverlapError).close()


def test_of_two_heaps_that_want_the_same_bytes_of_a_block_one_gets_them():
    with bsa.Allocator(1 << 20) as outer:
        for _ in range(ROUNDS // 5):
            block = outer.alloc(1 << 16)
            results = in_threads(
                *[lambda: outcome(lambda: bsa.Allocator(block), bsa.MemoryOverlapError)] * 3
            )
            assert results.count(bsa.MemoryOverlapError) == 2
            inner = next(r for r in results if r is not bsa.MemoryOverlapError)
            inner.free(inner.malloc(64))
            inner.close()
            del results, inner
            block.free()


def test_a_heap_over_the_bytes_of_a_block_that_is_just_dropped_gets_them_or_is_refused():
    array_type = ctypes.c_char * (1 << 16)
    with bsa.Allocator(1 << 20) as outer:
        for _ in range(ROUNDS // 5):
            blocks = [outer.alloc(1 << 16)]
            raw = array_type.from_address(blocks[0].address)  # does not keep the Block alive
            inner, _ = in_threads(
                lambda: outcome(lambda: bsa.Allocator(raw), bsa.MemoryOverlapError), blocks.clear
            )
            if inner is not bsa.MemoryOverlapError:
                assert len(outer) == 1
                inner.free(inner.malloc(64))
                inner.close()
            assert len(outer) == 0
        outer.check()


def test_a_walk_shared_by_threads_gives_each_allocation_once():
    with bsa.Allocator(1 << 20) as heap:
        addresses = sorted(heap.malloc(100) for _ in range(2000))
        walk = heap.walk()
        seen = in_threads(*[lambda: [address for address, _, _ in walk]] * 4)
        assert sorted(itertools.chain(*seen)) == addresses


def test_all_threads_see_the_same_section_objects():
    with bsa.Allocator(1 << 20) as heap:
        for _ in range(ROUNDS // 10):
            sections = in_threads(*[lambda: heap.sections[0]] * 4)
            assert len(set(map(id, sections))) == 1
            del sections


# --- callbacks ---


def until_another_thread_has_used(heap):
    """A callback that waits without ever leaving the interpreter, and what runs beside it."""
    asked, used = threading.Event(), threading.Event()

    def spin(*ignored):
        asked.set()
        while not used.is_set():
            pass
        return False

    def use():
        assert asked.wait(60)
        heap.free(heap.malloc(16))
        used.set()

    return spin, use


def test_an_on_oom_callback_may_wait_for_another_threads_use_of_the_allocator():
    with bsa.Allocator(1 << 20) as heap:
        heap.on_oom, use = until_another_thread_has_used(heap)
        results = in_threads(lambda: outcome(lambda: heap.malloc(1 << 21), MemoryError), use)
        assert results == [bsa.OutOfMemoryError, None]


def test_a_translation_may_wait_for_another_threads_use_of_the_allocator():
    with bsa.Allocator() as heap:
        spin, use = until_another_thread_has_used(heap)
        heap.add_region(1 << 20, phys=spin)
        block, _ = in_threads(lambda: heap.alloc_pages_lowmem(1), use)
        assert len(block) == heap.page_size


def test_a_progress_callback_may_wait_for_another_threads_use_of_the_allocator():
    with bsa.Allocator(1 << 20) as heap:
        spin, use = until_another_thread_has_used(heap)
        events = [(bsa.TraceOp.ALLOC, 0, 64, 0, 0), (bsa.TraceOp.FREE, 0, 0, 0, 0)]
        formats = zip("BIQII", zip(*events))
        trace = bsa.Trace(*[array(format, column) for format, column in formats])
        in_threads(lambda: bsa.replay(trace, heap, progress=spin), use)
        assert len(heap) == 0


# --- the end ---


def test_threads_at_work_in_an_allocator_that_is_closed_get_an_exception():
    for seed in range(ROUNDS // 30):
        heap = bsa.Allocator(8 << 20)

        def use():
            try:
                while True:
                    block = heap.alloc(100)
                    heap.free(heap.malloc(5000))
                    heap.sections[0].free_pages, heap.stats(), list(heap.walk())
                    block[0] = 1
            except ValueError as error:  # ClosedError, or a Block without memory
                return error

        def close():
            while not heap.closed:
                outcome(heap.close, bsa.InUseError)

        in_threads(use, use, close)


def test_blocks_and_sections_may_outlive_their_allocator_in_other_threads():
    for _ in range(ROUNDS // 10):
        heap = bsa.Allocator(bytearray(1 << 18))
        pieces = [[heap.alloc(200), heap.sections[0], memoryview(heap.alloc(9))] for _ in range(3)]
        del heap
        in_threads(*[piece.clear for piece in pieces])


def test_a_cyclic_allocator_may_be_collected_while_others_use_its_blocks():
    def make_and_drop():
        for _ in range(ROUNDS // 10):
            heap = bsa.Allocator(1 << 18)
            block = heap.alloc(64)
            heap.on_oom = lambda allocator, nbytes, block=block: False
            handed_over.put(heap.alloc(32))
        handed_over.put(None)

    def use_and_drop():
        while (block := handed_over.get()) is not None:
            block[:] = bytes(32)
            block.allocator.malloc(16)

    handed_over = queue.SimpleQueue()
    in_threads(make_and_drop, use_and_drop, lambda: [gc.collect() for _ in range(20)])


# --- what was declared ---


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python always has its GIL"
)
def test_importing_bsa_leaves_the_gil_off():
    in_child(
        """
        import sys
        was_enabled = sys._is_gil_enabled()
        import bsa
        assert sys._is_gil_enabled() == was_enabled
    """
    )


USE = f"""
import sys
sys.path[:] = {sys.path!r}
import bsa
for _ in range(100):
    with bsa.Allocator(1 << 20) as heap:
        block = heap.alloc(1 << 16)
        with bsa.Allocator(block) as inner:
            inner.free(inner.malloc(5000))
        heap.check()
"""


@pytest.mark.skipif(
    importlib.util.find_spec("_interpreters") is None, reason="Python 3.13 has such interpreters"
)
def test_interpreters_with_a_gil_each_may_use_bsa_at_once():
    import _interpreters

    interpreters = [_interpreters.create() for _ in range(3)]
    try:
        failures = in_threads(
            *[
                lambda i=interpreter: _interpreters.run_string(i, USE)
                for interpreter in interpreters
            ]
        )
        assert failures == [None] * 3
    finally:
        for interpreter in interpreters:
            _interpreters.destroy(interpreter)
