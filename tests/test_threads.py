"""Python threads on one allocator: slots, frees by others, work that releases the GIL."""

import contextlib
import ctypes
import gc
import queue
import random
import sys
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor

import pytest

import bsa

ALLOC, FREE = bsa.TraceOp.ALLOC, bsa.TraceOp.FREE


@pytest.fixture(autouse=True)
def hasty():
    """Threads take turns far more often than usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def heap():
    with bsa.Allocator(8 << 20, cpus=64) as heap:
        yield heap
        heap.check()


def in_threads(*functions):
    """Runs each function in a thread of its own, all at once; what they returned."""
    barrier = threading.Barrier(len(functions))

    def run(function):
        barrier.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(run, f) for f in functions]]


def in_another_thread(function):
    (result,) = in_threads(function)
    return result


def long_trace(events=1_000_000, thread=0):
    """One block allocated and freed again and again: several batches of a replay."""
    zeros, rounds = array("I", [0]) * events, events // 2
    threads = array("I", [thread]) * events
    sizes = array("Q", [64, 0]) * rounds
    return bsa.Trace(array("B", [ALLOC, FREE]) * rounds, zeros, sizes, zeros, threads)


def replay_until_finished(heap):
    """An event, and a function that replays for a while and then sets it."""
    finished = threading.Event()

    def replay():
        try:
            bsa.replay(long_trace(), heap)
        finally:
            finished.set()

    return finished, replay


class PausedReplay:
    """A replay in another thread that stands still between two batches while the `with` lasts."""

    def __init__(self, heap):
        self.heap = heap
        self.reached, self.resume = threading.Event(), threading.Event()
        self.pool = ThreadPoolExecutor(1)

    def _pause(self, events_run):
        self.reached.set()
        self.resume.wait()

    def __enter__(self):
        self.future = self.pool.submit(bsa.replay, long_trace(), self.heap, progress=self._pause)
        self.reached.wait()
        return self

    def __exit__(self, *exception):
        self.resume.set()
        self.timeline = self.future.result()
        self.pool.shutdown()


# --- slots ---


def test_threads_that_live_at_once_have_slots_of_their_own(heap):
    barrier = threading.Barrier(8)

    def slot_of_a_new_object():
        slab = heap.slab_of(heap.malloc(32))
        barrier.wait()
        return slab.cpu

    slots = in_threads(*[slot_of_a_new_object] * 8)
    assert len(set(slots)) == 8


def test_what_a_dead_thread_has_allocated_stays(heap):
    address = in_another_thread(lambda: heap.malloc(32))
    assert address in heap
    heap.free(address)


def test_a_pin_holds_for_its_own_thread_only():
    with bsa.cpu(33):
        assert in_another_thread(bsa.current_cpu) != 33
        assert bsa.current_cpu() == 33


def test_more_threads_than_slots_share_them():
    with bsa.Allocator(1 << 20, cpus=2) as heap:
        addresses = in_threads(*[lambda: [heap.malloc(48) for _ in range(200)]] * 6)
        addresses = [address for some in addresses for address in some]
        assert len(set(addresses)) == 1200
        assert {slab.cpu for slab in heap.slabs()} <= {0, 1}
        heap.check()


# --- allocating here, freeing there ---


def test_an_object_freed_by_another_thread_is_a_remote_free_of_its_slab(heap):
    address = heap.malloc(32)
    in_another_thread(lambda: heap.free(address))
    assert heap.slab_of(address).remote_free_count == 1
    assert address not in heap


def test_an_object_cannot_be_freed_by_two_threads(heap):
    address = heap.malloc(32)
    in_another_thread(lambda: heap.free(address))
    with pytest.raises(bsa.NotAllocatedError):
        heap.free(address)
    assert heap.slab_of(address).remote_free_count == 1


def test_memory_stays_bounded_where_one_thread_allocates_and_another_frees():
    with bsa.Allocator(256 << 10, cpus=64) as heap:
        handed_over = queue.Queue(20)

        def produce():
            try:
                for number in range(10_000):
                    handed_over.put(heap.malloc(256 + number % 3 * 2000))
            finally:
                handed_over.put(None)

        def consume():
            while (address := handed_over.get()) is not None:
                heap.free(address)

        in_threads(produce, consume)
        assert len(heap) == 0
        heap.trim()
        assert heap.free_pages == heap.total_pages
        heap.check()


def test_blocks_that_change_threads_give_their_memory_back(heap):
    handed_over = queue.Queue(50)

    def produce():
        try:
            for number in range(3000):
                handed_over.put(heap.alloc_from(number.to_bytes(2, "little") * 20))
        finally:
            handed_over.put(None)

    def consume():
        numbers = []
        while (block := handed_over.get()) is not None:
            numbers.append(int.from_bytes(block[38:], "little"))
        return numbers

    _, numbers = in_threads(produce, consume)
    assert numbers == list(range(3000))
    assert len(heap) == 0


def churn(heap, seed, rounds=1500):
    """Allocates, writes, looks, reallocates and frees at random; nothing is left."""
    rng = random.Random(seed)
    tag = bytes([seed]) * 8
    held = []
    for _ in range(rounds):
        action = rng.random()
        if action < 0.5 or not held:
            address = heap.malloc(rng.choice([8, 24, 100, 700, 5000]))
            ctypes.memmove(address, tag, 8)
            held.append(address)
        else:
            place = rng.randrange(len(held))
            assert ctypes.string_at(held[place], 8) == tag
            if action < 0.6:
                held[place] = heap.realloc(held[place], rng.randrange(8, 6000))
            else:
                heap.free(held.pop(place))
    for address in held:
        assert ctypes.string_at(address, 8) == tag
    heap.free_many(held)


def test_threads_never_get_each_others_memory(heap):
    in_threads(*[lambda seed=seed: churn(heap, seed) for seed in range(6)])
    assert len(heap) == 0
    heap.trim()
    assert heap.free_pages == heap.total_pages


# --- work that releases the GIL ---


def test_threads_allocate_while_another_checks(heap):
    def check():
        for _ in range(200):
            heap.check()

    in_threads(check, check, *[lambda seed=seed: churn(heap, seed) for seed in range(3)])
    assert len(heap) == 0


def test_a_thread_that_checks_without_pause_lets_others_in(heap):
    is_finished, checking = False, threading.Event()

    def check():
        for number in range(300_000):
            if is_finished:
                return True
            heap.check()
            if number == 10:
                checking.set()
        return False

    def allocate():
        nonlocal is_finished
        checking.wait()
        for _ in range(100):
            heap.free(heap.malloc(64))
        is_finished = True

    sys.setswitchinterval(0.005)  # as usual
    was_in_time, _ = in_threads(check, allocate)
    assert was_in_time


def test_threads_allocate_while_another_replays(heap):
    def replay():
        return bsa.replay(long_trace(thread=50), heap, samples=10)

    timeline, *_ = in_threads(replay, *[lambda seed=seed: churn(heap, seed) for seed in range(3)])
    assert timeline.survivors == len(heap) == 0


def test_two_threads_replay_on_one_allocator(heap):
    def replay(thread):
        return bsa.replay(long_trace(thread=thread), heap).survivors

    assert in_threads(lambda: replay(50), lambda: replay(51)) == [0, 0]
    assert len(heap) == 0


def test_threads_look_around_while_another_replays(heap):
    addresses = [heap.malloc(3000) for _ in range(5)]
    finished, replay = replay_until_finished(heap)

    def look():
        while not finished.is_set():
            assert heap.free_pages <= heap.total_pages
            assert set(addresses) <= {address for address, _, _ in heap.walk()}
            assert all(address in heap for address in addresses)
            assert heap.stats().current_count >= 5
            repr(heap)

    in_threads(replay, look)


def test_an_allocator_cannot_be_closed_while_another_thread_replays(heap):
    with PausedReplay(heap) as replay:
        with pytest.raises(bsa.InUseError):
            heap.close()
        assert not heap.closed
        assert heap.free(heap.malloc(10)) is None
    assert replay.timeline.survivors == 0


def test_a_section_cannot_be_removed_while_another_thread_replays(heap):
    section = heap.add_region(1 << 16)
    with PausedReplay(heap):
        with pytest.raises(bsa.InUseError):
            heap.remove_region(section)
    heap.remove_region(section)


def test_attempts_to_close_during_a_replay_are_refused_until_it_is_over():
    heap = bsa.Allocator(8 << 20)
    replaying = threading.Event()

    def replay():
        return bsa.replay(long_trace(), heap, progress=lambda events_run: replaying.set())

    def close():
        replaying.wait()
        while not heap.closed:
            with contextlib.suppress(bsa.InUseError):
                heap.close()

    timeline, _ = in_threads(replay, close)
    assert timeline.survivors == 0


def test_a_block_dropped_during_a_replay_gives_its_memory_back(heap):
    blocks = [heap.alloc(64 + i % 50 * 100) for i in range(1500)]
    finished, replay = replay_until_finished(heap)

    def drop():
        while blocks and not finished.is_set():
            blocks.pop()

    in_threads(replay, drop)
    assert len(heap) == len(blocks)
    heap.check()
    blocks.clear()
    heap.trim()
    assert heap.free_pages == heap.total_pages


def test_an_exported_block_dropped_during_a_replay_gives_its_memory_back(heap):
    blocks = [heap.alloc(500) for _ in range(500)]
    for block in blocks:
        memoryview(block).release()
        block.free()
    del block
    finished, replay = replay_until_finished(heap)

    def drop():
        while blocks:
            blocks.pop()

    in_threads(replay, drop)
    assert heap.stats().parked_bytes == 0
    heap.trim()
    assert heap.free_pages == heap.total_pages


def test_a_progress_callback_may_use_the_allocator(heap):
    used = []

    def use(events_run):
        block = heap.alloc(100)
        in_another_thread(lambda: heap.free(heap.malloc(200)))
        used.append(block[:0])

    bsa.replay(long_trace(), heap, progress=use)
    assert used
    assert len(heap) == 0


def test_clearing_much_memory_lets_others_in():
    with bsa.Allocator(256 << 20, cpus=64) as heap:
        finished = threading.Event()

        def clear():
            try:
                for _ in range(20):
                    heap.free(heap.malloc(4 << 20, zero=True))
            finally:
                finished.set()

        def use():
            while not finished.is_set():
                heap.free(heap.malloc(100))

        in_threads(clear, use)
        assert len(heap) == 0
        heap.check()


def test_closing_while_another_thread_clears_is_refused_or_comes_first():
    for _ in range(10):
        heap = bsa.Allocator(64 << 20, cpus=64)

        def clear():
            with pytest.raises(bsa.ClosedError):
                while True:
                    heap.free(heap.malloc(4 << 20, zero=True))

        def close():
            while not heap.closed:
                with contextlib.suppress(bsa.InUseError):
                    heap.close()

        in_threads(clear, close)


# --- the garbage collector runs where it likes ---


def test_blocks_in_a_cycle_are_freed_by_the_collector_of_another_thread(heap):
    for size in (64, 10_000):
        cycle = [heap.alloc(size)]
        cycle.append(cycle)
    del cycle
    assert len(heap) == 2
    in_another_thread(gc.collect)
    assert len(heap) == 0


def test_the_collector_may_free_blocks_in_the_middle_of_an_allocation(heap):
    threshold = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        for number in range(2000):
            cycle = [heap.alloc(number % 5000)]
            cycle.append(cycle)
            heap.slabs()
    finally:
        gc.set_threshold(*threshold)
    del cycle
    gc.collect()
    assert len(heap) == 0


def test_threads_make_cycles_while_another_collects(heap):
    finished = threading.Event()

    def make(seed):
        for number in range(1000):
            cycle = [heap.alloc(seed * 100 + number % 900)]
            cycle.append(cycle)

    def collect():
        while not finished.is_set():
            gc.collect(0)

    def make_all():
        try:
            in_threads(*[lambda seed=seed: make(seed) for seed in range(3)])
        finally:
            finished.set()

    in_threads(make_all, collect)
    gc.collect()
    assert len(heap) == 0


def test_an_allocator_in_a_cycle_is_collected_by_another_thread():
    buffer = bytearray(1 << 20)

    def make():
        heap = bsa.Allocator(buffer)
        heap.on_oom = lambda allocator, nbytes: heap is None
        heap.malloc(100)
        return heap.alloc(100)

    in_another_thread(make)
    in_another_thread(gc.collect)
    buffer.append(1)  # it is exported no more


# --- the callback for lack of memory ---


def test_each_thread_asks_for_its_own_request():
    asked = {}

    def remember(allocator, nbytes):
        asked.setdefault(threading.get_ident(), []).append(nbytes)
        return False

    def ask(size):
        with pytest.raises(bsa.OutOfMemoryError):
            heap.malloc(size)
        return threading.get_ident()

    with bsa.Allocator(1 << 16, cpus=64, on_oom=remember) as heap:
        sizes = [1 << 20, 1 << 21, 1 << 22]
        threads = in_threads(*[lambda size=size: ask(size) for size in sizes])
    assert [asked[thread] for thread in threads] == [[size] for size in sizes]


def test_a_callback_may_wait_for_another_thread_to_free():
    with bsa.Allocator(1 << 16, cpus=64) as heap:
        held = heap.malloc(heap.largest_free)

        def wait(allocator, nbytes):
            in_another_thread(lambda: allocator.free(held))
            allocator.on_oom = None
            return True

        heap.on_oom = wait
        assert heap.malloc(heap.page_size << 3) in heap
        heap.check()
