"""After a fork: private heaps are the child's own, shared ones stay the parent's."""

import contextlib
import gc
import mmap
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from array import array
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import shared_memory

import pytest
from helpers import unchanged

import bsa

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

SIZE = 1 << 20


def in_child(function):
    """Calls the function in a forked child, which must neither raise, crash nor hang."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks in spite of other threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(60)
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def use(heap):
    """All of it works, and what was there can be freed."""
    block = heap.alloc(100)
    block[:5] = b"child"
    heap.free(heap.malloc(10_000))
    for address, _, kind in list(heap.walk()):
        if kind in ("object", "pages"):
            heap.free(address)
    assert block[:5] == b"child"
    block.free()
    heap.trim()
    heap.check()


def private_file_mapping(size):
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE)


PRIVATE = {
    "size": lambda: SIZE,
    "bytearray": lambda: bytearray(SIZE),
    "array": lambda: array("Q", bytes(SIZE)),
    "anonymous mapping": lambda: mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
    "private file mapping": lambda: private_file_mapping(SIZE),
}


@contextlib.contextmanager
def shared_anonymous():
    yield mmap.mmap(-1, SIZE)


@contextlib.contextmanager
def shared_file(tmp_path):
    with open(tmp_path / "heap", "w+b") as file:
        file.truncate(SIZE)
        yield mmap.mmap(file.fileno(), SIZE)


@contextlib.contextmanager
def shared_segment():
    segment = shared_memory.SharedMemory(create=True, size=SIZE)
    try:
        yield segment.buf
    finally:
        segment.unlink()
        with contextlib.suppress(BufferError):  # the heap still has it where a test has failed
            segment.close()


@pytest.fixture(params=["anonymous", "file", "segment"])
def shared(request, tmp_path):
    """A mapping that a forked child shares with its parent."""
    kind = {
        "anonymous": shared_anonymous,
        "file": lambda: shared_file(tmp_path),
        "segment": shared_segment,
    }
    with kind[request.param]() as buffer:
        yield buffer


# --- memory that a fork copies ---


@pytest.mark.parametrize("kind", PRIVATE)
def test_a_heap_in_private_memory_works_in_the_child_and_the_parents_stays(kind, make):
    heap = make(PRIVATE[kind]())
    address = heap.malloc(3000)
    block = heap.alloc_from(b"parent")

    def child():
        use(heap)
        block[:] = b"child!"
        assert address not in heap

    with unchanged(heap):
        in_child(child)
    assert block[:] == b"parent"


def test_a_block_dropped_in_the_child_stays_the_parents(make):
    heap = make(SIZE)
    blocks = [heap.alloc_from(b"parent")]

    def child():
        blocks.clear()
        assert len(heap) == 0
        heap.check()

    with unchanged(heap):
        in_child(child)
    assert blocks[0][:] == b"parent"


def test_a_heap_closed_in_the_child_stays_open_in_the_parent(make):
    heap = make(SIZE)
    block = heap.alloc_from(b"parent")
    in_child(heap.close)
    assert block[:] == b"parent"


def test_views_are_the_childs_own_as_well(make):
    heap = make(SIZE)
    block = heap.alloc(100)
    view = memoryview(block)

    def child():
        with pytest.raises(bsa.InUseError):
            block.free()
        view.release()
        block.free()
        heap.check()

    in_child(child)
    with pytest.raises(bsa.InUseError):
        block.free()
    view.release()


def test_a_grandchild_has_a_heap_of_its_own_too(make):
    heap = make(SIZE)
    heap.malloc(100)

    def child():
        kept = heap.malloc(200)
        with unchanged(heap):
            in_child(lambda: use(heap))
        assert kept in heap

    with unchanged(heap):
        in_child(child)


def test_a_child_forked_by_another_thread_can_start_threads_that_allocate(make):
    heap = make(SIZE, cpus=8)

    def child():
        addresses = [heap.malloc(64)]
        thread = threading.Thread(target=lambda: addresses.append(heap.malloc(64)))
        thread.start()
        thread.join()
        assert len(set(addresses)) == 2
        heap.free_many(addresses)
        heap.check()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(in_child, child).result()


def test_the_thread_numbers_of_threads_left_behind_are_free_in_a_forked_child():
    all_numbered, resume = threading.Barrier(9), threading.Event()

    def take_a_number():
        bsa.current_cpu()
        all_numbered.wait()
        resume.wait()

    def child():
        numbers = []
        thread = threading.Thread(target=lambda: numbers.append(bsa.current_cpu()))
        thread.start()
        thread.join()
        assert numbers == [1 if bsa.current_cpu() == 0 else 0]

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(take_a_number)
        all_numbered.wait()
        try:
            in_child(child)
        finally:
            resume.set()


def test_a_fork_within_the_callback_for_lack_of_memory_leaves_two_heaps(make):
    heap = make(1 << 16)
    held = heap.malloc(heap.largest_free)

    def child():
        heap.free(held)
        assert heap.malloc(1 << 14) in heap
        heap.check()

    def fork(allocator, nbytes):
        in_child(child)
        return False

    heap.on_oom = fork
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(heap.largest_free + (1 << 15))
    assert held in heap


def test_a_heap_cannot_be_closed_under_a_callback_that_forked(make):
    refusals = []

    def close():
        try:
            heap.close()
        except bsa.InUseError as error:
            refusals.append(error)

    def phys(address):
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            thread = threading.Thread(target=close)  # the first to use the heap in the child
            thread.start()
            thread.join()
            children.append(True)
        else:
            _, status = os.waitpid(pid, 0)
            statuses.append(os.waitstatus_to_exitcode(status))
        return address & 0xFFFFF000

    children, statuses = [], []
    heap = make(SIZE, phys=phys)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        block = heap.alloc_pages_lowmem(1)
    if children:
        block.free()
        heap.close()
        os._exit(0 if len(refusals) == 1 and heap.closed else 1)
    assert statuses == [0]


def test_a_region_is_still_managed_in_the_child(make):
    buffer = bytearray(SIZE)
    make(buffer)

    def child():
        with pytest.raises(bsa.MemoryOverlapError):
            bsa.Allocator(memoryview(buffer)[100:])

    in_child(child)


# --- memory that a fork shares ---


def test_a_heap_in_shared_memory_refuses_everything_in_the_child(shared, make):
    heap = make(shared)
    address, block = heap.malloc(100), heap.alloc(100)
    section = heap.sections[0]

    def child():
        attempts = [
            lambda: heap.malloc(10),
            lambda: heap.alloc(10),
            lambda: heap.alloc_pages(1),
            lambda: heap.malloc_many(2, 10),
            lambda: heap.free(address),
            lambda: heap.free_many([address]),
            lambda: heap.realloc(address, 10),
            lambda: heap.block(address),
            lambda: heap.usable_size(address),
            lambda: address in heap,
            lambda: len(heap),
            lambda: heap.sections,
            lambda: heap.free_pages,
            lambda: heap.stats(),
            lambda: heap.walk(),
            lambda: heap.check(),
            lambda: heap.trim(),
            lambda: heap.add_region(SIZE),
            lambda: heap.remove_region(section),
            lambda: section.free_pages,
            lambda: section.page_states(),
            lambda: block.free(),
            lambda: block.resize(5),
            lambda: block.detach(),
            lambda: block[0],
            lambda: memoryview(block),
        ]
        for number, attempt in enumerate(attempts):
            try:
                attempt()
            except RuntimeError as error:
                assert type(error) is RuntimeError, number
            else:
                raise AssertionError(f"attempt {number} has succeeded")

    with unchanged(heap):
        in_child(child)


def test_destructors_in_the_child_leave_a_shared_heap_alone(shared, make):
    heap = make(shared)
    blocks = [heap.alloc_from(b"parent"), heap.alloc_pages(3)]
    memoryview(blocks[1]).release()

    def child():
        blocks.clear()
        gc.collect()

    with unchanged(heap):
        in_child(child)
    assert blocks[0][:] == b"parent"


def test_a_dropped_allocator_in_the_child_leaves_a_shared_heap_alone(shared):
    heaps = [bsa.Allocator(shared)]
    block = heaps[0].alloc_from(b"parent")
    blocks = [block]
    del block

    def child():
        blocks.clear()
        heaps.clear()
        gc.collect()

    with unchanged(heaps[0]):
        in_child(child)
    assert blocks[0][:] == b"parent"
    blocks.clear()
    heaps.pop().close()


def test_one_shared_section_makes_the_whole_heap_the_parents(make):
    heap = make(SIZE)
    heap.add_region(mmap.mmap(-1, SIZE))

    def child():
        with pytest.raises(RuntimeError):
            heap.malloc(10)

    in_child(child)


def test_a_heap_inside_a_block_of_shared_memory_is_the_parents(make):
    outer = make(mmap.mmap(-1, SIZE))
    inner = make(outer.alloc(SIZE // 4))

    def child():
        with pytest.raises(RuntimeError):
            inner.malloc(10)

    with unchanged(inner, outer):
        in_child(child)


def test_an_allocator_of_the_parent_can_still_be_shown_in_the_child(shared, make):
    heap = make(shared)

    def child():
        assert "Allocator" in repr(heap)
        assert "<" in heap._repr_html_()
        assert not heap.closed

    in_child(child)


def test_the_parent_goes_on_with_a_shared_heap(shared, make):
    heap = make(shared)
    in_child(lambda: None)
    use(heap)


def test_the_child_can_have_a_heap_of_its_own_beside_a_shared_one(shared, make):
    make(shared)

    def child():
        with bsa.Allocator(SIZE) as own:
            use(own)

    in_child(child)


# --- a fork while another thread is at work ---


def replay_forever(heap, stop, events=100_000):
    zeros, rounds = array("I", [0]) * events, events // 2
    op = array("B", [bsa.TraceOp.ALLOC, bsa.TraceOp.FREE]) * rounds
    trace = bsa.Trace(op, zeros, array("Q", [64, 0]) * rounds, zeros, zeros)
    while not stop.is_set():
        bsa.replay(trace, heap)


def check_forever(heap, stop):
    while not stop.is_set():
        heap.check()


@pytest.mark.parametrize("work", [replay_forever, check_forever])
def test_a_child_forked_during_work_gets_a_heap_that_works_or_says_that_it_cannot(work, make):
    heap = make(SIZE)
    block = heap.alloc(100)

    def child():
        try:
            use(heap)
        except RuntimeError as error:
            assert type(error) is RuntimeError
        block_is_gone.clear()
        gc.collect()

    block_is_gone = [block]
    del block
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, heap, stop)
        try:
            for _ in range(20):
                in_child(child)
        finally:
            stop.set()
        future.result()
    heap.check()
    assert len(heap) == 1


@contextlib.contextmanager
def paused_replay(heap):
    """A replay in another thread that stands still between two of its batches."""
    reached, resume = threading.Event(), threading.Event()

    def pause(events_run):
        reached.set()
        resume.wait()

    trace = bsa.Trace.from_events([(bsa.TraceOp.ALLOC, 0, 64, 0, 0)])
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(bsa.replay, trace, heap, progress=pause)
        reached.wait()
        try:
            yield
        finally:
            resume.set()
        future.result()


def test_a_child_forked_between_two_batches_of_a_replay_can_use_the_heap(make):
    heap = make(SIZE)
    with paused_replay(heap):
        in_child(lambda: use(heap))


def test_a_child_forked_between_two_batches_of_another_threads_replay_can_close_the_heap(make):
    """The replay is under way in the parent; the child has not the thread that ran it."""
    heap = make(SIZE)
    with paused_replay(heap):
        in_child(heap.close)
        with pytest.raises(bsa.InUseError):
            heap.close()
    assert not heap.closed


def test_a_child_forked_by_the_thread_that_replays_cannot_close_the_heap(make):
    """Not before that replay, which goes on in the child, too, has ended."""
    heap = make(SIZE)

    def close_too_early():
        with pytest.raises(bsa.InUseError):
            heap.close()

    trace = bsa.Trace.from_events([(bsa.TraceOp.ALLOC, 0, 64, 0, 0)])
    bsa.replay(trace, heap, progress=lambda events_run: in_child(close_too_early))


def test_replays_that_end_in_any_order_are_counted_one_by_one(make):
    heap = make(SIZE)
    with contextlib.ExitStack() as second:
        with paused_replay(heap):
            second.enter_context(paused_replay(heap))
            in_child(heap.close)
        with pytest.raises(bsa.InUseError):
            heap.close()
        in_child(heap.close)
    heap.close()


def test_greenlets_within_callbacks_survive_a_fork(make):
    """Each has a stack of its own; while it does not run, that lies elsewhere."""
    greenlet = pytest.importorskip("greenlet")
    heap, main = make(SIZE), greenlet.getcurrent()
    trace = bsa.Trace.from_events([(bsa.TraceOp.ALLOC, 0, 64, 0, 0)])

    def replay():
        bsa.replay(trace, heap, progress=lambda events_run: main.switch())

    def end_all():
        for paused in (first, second):  # not the last one first
            with pytest.raises(bsa.InUseError):
                heap.close()
            paused.switch()
            assert paused.dead
        heap.check()
        heap.close()

    first, second = greenlet.greenlet(replay), greenlet.greenlet(replay)
    first.switch(), second.switch()
    in_child(end_all)
    end_all()


# --- multiprocessing ---


def multiply(connection, heap, block):
    block[:6] = b"child!"
    heap.check()
    connection.send((block[:6], len(heap)))


def test_multiprocessing_by_fork_gives_the_child_its_own_heap(make):
    context = multiprocessing.get_context("fork")
    heap = make(SIZE)
    block = heap.alloc_from(b"parent")
    here, there = context.Pipe()
    process = context.Process(target=multiply, args=(there, heap, block))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    assert here.recv() == (b"child!", 1)
    process.join()
    assert process.exitcode == 0
    assert block[:] == b"parent"


def answer(name, offset):
    segment = shared_memory.SharedMemory(name)
    try:
        question = bytes(segment.buf[offset : offset + 8])
        segment.buf[offset : offset + 8] = question[::-1]
    finally:
        segment.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_finds_a_block_in_shared_memory_at_its_offset(method):
    context = multiprocessing.get_context(method)
    segment = shared_memory.SharedMemory(create=True, size=SIZE)
    try:
        with bsa.Allocator(segment.buf) as heap:
            block = heap.alloc_from(b"question")
            process = context.Process(target=answer, args=(segment.name, block.offset))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            process.join()
            assert process.exitcode == 0
            assert block[:] == b"noitseuq"
            heap.check()
    finally:
        segment.close()
        segment.unlink()
