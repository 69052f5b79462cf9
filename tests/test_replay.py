"""Replays: the engine in C does what a loop over malloc and free does; what is wrong is told."""

import contextlib
import mmap
import pathlib
import pickle
import random
import signal
import sys
import threading
from array import array

import pytest

import bsa
from bsa import _core, metrics
from bsa.timeline import ORDERS
from bsa.trace import Trace, TraceOp

ALLOC, ZALLOC, REALLOC, FREE = TraceOp
SIZE = 4 << 20
RECORDED = sorted((pathlib.Path(__file__).parent / "traces").glob("*.bsa"))


def random_trace(events, seed, threads=3):
    """A valid trace with all in it: few large blocks, reallocs, alignments, frees by others."""
    rng = random.Random(seed)
    alive, spare, rows = [], [], []
    for _ in range(events):
        thread = rng.randrange(threads)
        size = rng.choice([rng.randrange(200), rng.randrange(5000), rng.randrange(40000)])
        if not alive or (len(alive) < 150 and rng.random() < 0.5):
            block = spare.pop() if spare else len(alive)
            alive.append(block)
            rows.append((rng.choice([ALLOC, ZALLOC]), block, size, rng.choice([0, 0, 64]), thread))
        elif rng.random() < 0.2:
            rows.append((REALLOC, rng.choice(alive), size, 0, thread))
        else:
            alive.remove(block := rng.choice(alive))
            spare.append(block)
            rows.append((FREE, block, 0, 0, thread))
    return Trace.from_events(rows)


def churn(events, size=64):
    """One block allocated and freed again and again."""
    zeros = array("I", [0]) * events
    rounds = events // 2
    return Trace(
        array("B", [ALLOC, FREE]) * rounds, zeros, array("Q", [size, 0]) * rounds, zeros, zeros
    )


@contextlib.contextmanager
def heap_of(size=SIZE, cpus=3, **options):
    with bsa.Allocator(size, cpus=cpus, **options) as heap:
        yield heap
        heap.check()


class ByHand:
    """The same replay through the public interface, one call an event."""

    def __init__(self, heap):
        self.heap = heap
        self.address, self.size = {}, {}

    def run(self, events):
        for op, block, size, align, thread in events:
            with bsa.cpu(thread % self.heap.cpus):
                self._run_event(op, block, size, align)

    def _run_event(self, op, block, size, align):
        if op == FREE:
            self.heap.free(self.address.pop(block))
            del self.size[block]
        elif op == REALLOC:
            self.address[block] = self.heap.realloc(self.address[block], size)
            self.size[block] = size
        else:
            self.address[block] = self.heap.malloc(size, align or None)
            self.size[block] = size

    @property
    def requested(self):
        return sum(self.size.values())

    @property
    def granted(self):
        return sum(map(self.heap.usable_size, self.address.values()))

    @property
    def losses(self):
        """Rounding to classes, to blocks, and what slabs have beside live objects."""
        kinds = {address: kind for address, _, kind in self.heap.walk()}
        lost = {"object": 0, "pages": 0}
        for block, address in self.address.items():
            lost[kinds[address]] += self.heap.usable_size(address) - self.size[block]
        objects = sum(slab.size * len(slab.objects()) for slab in self.heap.slabs())
        pages = sum(slab.nbytes for slab in self.heap.slabs())
        return lost["object"], lost["pages"], pages - objects


def layout(heap):
    """Every live allocation, as offsets, and every page."""
    start = heap.sections[0].start
    places = [(address - start, size, kind) for address, size, kind in heap.walk()]
    return places, heap.sections[0].page_states(), heap.free_blocks()


def replay_and_loop(trace, size=SIZE, cpus=3):
    """Runs the trace both ways; the layouts that either left. Over the same bytes, since where
    blocks lie depends on addresses."""
    memory = mmap.mmap(-1, size)
    with heap_of(memory, cpus) as heap:
        timeline = bsa.replay(trace, heap, samples=0)
        replayed = layout(heap)
    with heap_of(memory, cpus) as heap:
        hand = ByHand(heap)
        hand.run(trace)
        assert (timeline.requested[0], timeline.granted[0]) == (hand.requested, hand.granted)
        assert timeline.survivors == len(hand.address) == len(heap)
        return replayed, layout(heap)


@pytest.mark.parametrize("seed", range(5))
def test_a_replay_leaves_the_heap_as_a_loop_over_malloc_and_free_does(seed):
    replayed, looped = replay_and_loop(random_trace(2000, seed))
    assert replayed == looped


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_same_is_true_of_real_programs(path):
    trace = Trace.load(path)[:50_000]
    replayed, looped = replay_and_loop(trace, 16 << 20, trace.threads)
    assert replayed == looped


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_sampled_peak_of_a_real_program_is_near_the_true_one(path):
    trace = Trace.load(path)
    with heap_of(16 << 20, trace.threads) as heap:
        timeline = bsa.replay(trace, heap, samples=1000)
    assert 0.8 * trace.peak[1] < max(timeline.requested) <= trace.peak[1]


@pytest.mark.parametrize("samples", [1, 7, 50])
def test_each_sample_tells_the_state_of_the_heap_at_its_event(samples):
    trace = random_trace(500, seed=samples)
    memory = mmap.mmap(-1, SIZE)
    with heap_of(memory) as heap:
        timeline = bsa.replay(trace, heap, samples=samples)
    done = 0
    with heap_of(memory) as heap:
        hand = ByHand(heap)
        for k, event in enumerate(timeline.event):
            hand.run(trace[index] for index in range(done, event))
            done = event
            assert_sample(timeline, k, hand)


def assert_sample(timeline, k, hand):
    heap = hand.heap
    assert timeline.requested[k] == hand.requested
    assert timeline.granted[k] == hand.granted
    assert timeline.allocated[k] == heap.allocated_bytes
    assert timeline.free_blocks[k] == heap.free_blocks()
    losses = (timeline.class_rounding[k], timeline.page_rounding[k], timeline.slab_slack[k])
    assert losses == hand.losses
    assert sum(losses) == timeline.allocated[k] - timeline.requested[k]
    assert_free(timeline, k, heap)
    for order in range(ORDERS):
        assert timeline.unusable_index(order)[k] == heap.unusable_index(order)
        assert timeline.extfrag_index(order)[k] == heap.extfrag_index(order)


def assert_free(timeline, k, heap):
    counts, page_size = heap.free_blocks(), heap.page_size
    assert timeline.free[k] == metrics.free_pages(counts) * page_size
    assert timeline.largest_free[k] == heap.largest_free
    assert timeline.huge_share[k] == metrics.huge_share(counts, page_size)
    index = metrics.sum_of_squares_index(counts)
    assert timeline.sum_of_squares_index[k] == pytest.approx(index)
    for order in range(ORDERS):
        percent = metrics.extfrag_for_order(counts, order)
        assert timeline.extfrag_percent(order)[k] == percent


@pytest.mark.parametrize("page_size", [256, 4096, 1 << 21])
def test_samples_of_other_page_sizes_are_as_true(page_size):
    trace = random_trace(300, seed=1)
    with heap_of(128 << 20, page_size=page_size) as heap:
        timeline = bsa.replay(trace, heap, samples=0)
        assert_free(timeline, 0, heap)
        assert timeline.allocated[0] + timeline.free[0] == timeline.managed


def test_peaks_are_those_of_all_events_whatever_the_samples():
    events = [(ALLOC, 0, 100_000, 0, 0), (FREE, 0, 0, 0, 0), (ALLOC, 0, 10, 0, 0)]
    with heap_of() as heap:
        timeline = bsa.replay(Trace.from_events(events), heap, samples=0)
        assert (timeline.requested[0], timeline.peak_requested[0]) == (10, 100_000)
        assert timeline.peak_allocated[0] == 2**17
        assert timeline.peak_footprint == 2**17 / 100_000


def test_the_peak_of_the_bytes_asked_for_is_the_trace_s():
    trace = random_trace(2000, seed=3)
    with heap_of() as heap:
        timeline = bsa.replay(trace, heap, samples=20)
    assert timeline.peak_requested[-1] == trace.peak[1]
    assert list(timeline.peak_requested) == sorted(timeline.peak_requested)


@pytest.mark.parametrize("samples, taken", [(0, 1), (1, 1), (3, 3), (10, 10), (2**40, 10)])
def test_samples_are_spread_evenly_and_the_last_one_is_at_the_end(samples, taken):
    with heap_of() as heap:
        timeline = bsa.replay(churn(10), heap, samples=samples)
    assert timeline.event.tolist() == [10 * (k + 1) // taken for k in range(taken)]
    assert len(timeline) == taken


def test_an_empty_trace_gives_one_sample_of_the_heap_as_it_was():
    with heap_of() as heap:
        timeline = bsa.replay(Trace.from_events([]), heap, samples=5)
        assert len(timeline) == 1 and timeline.events == 0
        assert timeline.requested[0] == timeline.granted[0] == 0


def test_what_was_live_before_counts_as_allocated_but_not_as_granted():
    with heap_of() as heap:
        before = heap.malloc(100_000)
        timeline = bsa.replay(Trace.from_events([(ALLOC, 0, 10_000, 0, 0)]), heap)
        assert timeline.requested[0] == 10_000
        assert timeline.granted[0] == 3 * 4096 + 4096
        assert timeline.allocated[0] == 2**17 + 4 * 4096
        heap.free(before)


def test_survivors_stay_allocated_with_the_sizes_asked_for():
    with heap_of() as heap:
        bsa.replay(Trace.from_events([(ALLOC, 0, 100, 0, 0), (ALLOC, 1, 9000, 8192, 1)]), heap)
        (small, *_), (large, size, kind) = heap.walk()
        assert heap.usable_size(small) >= 100
        assert large % 8192 == 0 and size >= 9000 and kind == "pages"


def test_a_block_freed_by_another_thread_is_a_remote_free():
    trace = Trace.from_events([(ALLOC, 0, 64, 0, 0), (ALLOC, 1, 64, 0, 0), (FREE, 0, 0, 0, 1)])
    with heap_of(cpus=2) as heap:
        bsa.replay(trace, heap)
        (slab,) = heap.slabs(64)
        assert (slab.cpu, slab.remote_free_count) == (0, 1)


def test_more_threads_than_slots_share_them():
    trace = Trace.from_events([(ALLOC, block, 64, 0, block) for block in range(5)])
    with heap_of(cpus=2) as heap:
        bsa.replay(trace, heap)
        assert [slab.cpu for slab in heap.slabs(64)] == [0, 1]


# ---- Failing ----


def test_a_trace_that_does_not_fit_names_the_event_and_what_was_free():
    trace = Trace.from_events([(ALLOC, block, 65536, 64, 0) for block in range(100)])
    with heap_of(size=1 << 20) as heap:
        with pytest.raises(
            bsa.OutOfMemoryError, match=r"^event 15 \(alloc\): 65536 bytes"
        ) as caught:
            bsa.replay(trace, heap)
        error = caught.value
        assert len(heap) == 15
        assert (error.requested, error.align) == (65536, 64)
        assert error.free == heap.free_pages * 4096
        assert error.largest_free == heap.largest_free < 65536
        assert error.unusable_index == heap.unusable_index(4) == 1


def test_a_realloc_that_fails_leaves_the_old_block():
    trace = Trace.from_events([(ALLOC, 0, 5000, 0, 0), (REALLOC, 0, 2 << 20, 0, 0)])
    with heap_of(size=1 << 20) as heap:
        with pytest.raises(bsa.OutOfMemoryError, match=r"^event 1 \(realloc\)"):
            bsa.replay(trace, heap)
        assert [size for _, size, _ in heap.walk()] == [8192]


def test_an_allocator_without_a_section_refuses_the_first_event():
    with bsa.Allocator() as heap, pytest.raises(bsa.NotInitializedError, match="event 0"):
        bsa.replay(churn(2), heap)


def test_a_closed_allocator_is_refused():
    heap = bsa.Allocator(SIZE)
    heap.close()
    with pytest.raises(bsa.ClosedError):
        bsa.replay(churn(2), heap)


def test_only_a_trace_and_an_allocator_will_do():
    with heap_of() as heap:
        for arguments in [([], heap), (None, heap), (churn(2), None), (churn(2), churn(2))]:
            with pytest.raises(TypeError):
                bsa.replay(*arguments)


@pytest.mark.parametrize(
    "samples, error",
    [(-1, bsa.InvalidParamError), (2**64, OverflowError), (1.5, TypeError), (None, TypeError)],
)
def test_samples_is_a_number_from_0_up(samples, error):
    with heap_of() as heap, pytest.raises(error):
        bsa.replay(churn(2), heap, samples=samples)


# What is bad, as the text says it and as it is counted.
IMPOSSIBLE = {
    "there is no such operation": ("unknown_ops", (9, 0, 8, 0, 0)),
    "allocates an id that is alive already": ("repeated_ids", (ALLOC, 0, 8, 0, 0)),
    "frees an id that was never allocated": ("unknown_frees", (FREE, 2, 0, 0, 0)),
    "frees an id that was freed already": ("double_frees", (FREE, 1, 0, 0, 0)),
    "reallocates an id that is not alive": ("unknown_reallocs", (REALLOC, 2, 8, 0, 0)),
}


def columns_of(events):
    """Columns that did not go through Trace, which would refuse them."""
    return [array(code, column) for code, column in zip("BIQII", zip(*events))]


def replay_columns(heap, events, skips_bad=False):
    return _core._replay(heap, *columns_of(events), 0, skips_bad, None, None)


def around(event):
    """A history in which id 0 is alive and id 1 was, with the event in its midst."""
    begin = [(ALLOC, 0, 24, 0, 0), (ALLOC, 1, 8, 0, 0), (FREE, 1, 0, 0, 0)]
    return [*begin, event, (ALLOC, 3, 500, 0, 0)]


@pytest.mark.parametrize("text", IMPOSSIBLE)
def test_an_impossible_event_stops_the_replay_before_it(text):
    with heap_of() as heap:
        with pytest.raises(bsa.InvalidParamError, match=rf"event 3 .*{text}"):
            replay_columns(heap, around(IMPOSSIBLE[text][1]))
        assert len(heap) == 1


@pytest.mark.parametrize("text", IMPOSSIBLE)
def test_an_impossible_event_that_is_skipped_is_counted_and_changes_nothing(text):
    kind, event = IMPOSSIBLE[text]
    memory = mmap.mmap(-1, SIZE)
    with heap_of(memory) as heap:
        _, survivors, skipped = replay_columns(heap, around(event), skips_bad=True)
        seen = layout(heap)
    events = around(event)
    events.remove(event)
    with heap_of(memory) as heap:
        rows, *rest = replay_columns(heap, events)
        assert rest == [survivors, {}]
        assert layout(heap) == seen
    assert skipped == {kind: 1}


def test_bad_is_one_of_two_words():
    with heap_of() as heap, pytest.raises(bsa.InvalidParamError, match="'ignore'"):
        bsa.replay(churn(2), heap, bad="ignore")


def test_what_does_not_fit_is_skipped_with_all_that_follows_from_it():
    trace = Trace.from_events(
        [
            (ALLOC, 0, 1000, 0, 0),
            (ALLOC, 1, 2 << 20, 0, 0),  # does not fit
            (REALLOC, 0, 2 << 20, 0, 0),  # nor does this: 0 stays as it was
            (REALLOC, 1, 10, 0, 0),
            (FREE, 1, 0, 0, 0),
            (ALLOC, 1, 500, 0, 0),  # another block
            (FREE, 0, 0, 0, 0),
        ]
    )
    with heap_of(size=1 << 20) as heap:
        timeline = bsa.replay(trace, heap, samples=7, bad="skip")
        assert timeline.skipped == {"no_memory": 2, "orphaned": 2}
        assert timeline.requested.tolist() == [1000, 1000, 1000, 1000, 1000, 1500, 500]
        assert [size for _, size, _ in heap.walk()] == [512]
        assert timeline.survivors == 1 and timeline.events == 7


def test_a_trace_larger_than_memory_ends_as_empty_as_it_should():
    trace = random_trace(3000, seed=2)
    alive = {event.id: event.op != FREE for event in trace}
    frees = [(FREE, block, 0, 0, 0) for block in alive if alive[block]]
    with heap_of(size=1 << 20) as heap:
        timeline = bsa.replay(Trace.from_events([*trace, *frees]), heap, bad="skip")
        assert timeline.skipped["no_memory"] > 0 and timeline.skipped["orphaned"] > 0
        assert len(heap) == timeline.survivors == timeline.requested[-1] == 0


def test_what_the_allocator_refuses_for_another_reason_is_skipped_too():
    events = [(ALLOC, 0, 8, 24, 0), (FREE, 0, 0, 0, 0), (ALLOC, 0, 8, 0, 0)]
    with heap_of() as heap:
        with pytest.raises(bsa.InvalidParamError, match="event 0"):
            replay_columns(heap, events)
        assert replay_columns(heap, events, skips_bad=True)[1:] == (
            1,
            {"refused": 1, "orphaned": 1},
        )


def test_an_allocator_without_a_section_is_not_skipped_over():
    with bsa.Allocator() as heap, pytest.raises(bsa.NotInitializedError, match="event 0"):
        bsa.replay(churn(2), heap, bad="skip")


def test_columns_of_other_kinds_or_lengths_are_refused():
    op, block, size, align, thread = columns_of([(ALLOC, 0, 8, 0, 0)])
    with heap_of() as heap:
        with pytest.raises(TypeError, match="size"):
            _core._replay(heap, op, block, block, align, thread, 0, False, None, None)
        with pytest.raises(bsa.InvalidParamError, match="lengths"):
            _core._replay(heap, op, block * 2, size, align, thread, 0, False, None, None)
        with pytest.raises(TypeError):
            _core._replay(heap, op, block, size, align, 7, 0, False, None, None)
        assert len(heap) == 0


def test_a_table_takes_up_what_lives_for_a_replay_that_goes_on():
    first = columns_of([(ALLOC, 0, 24, 0, 0), (ALLOC, 1, 9000, 0, 0), (FREE, 0, 0, 0, 0)])
    second = columns_of([(FREE, 1, 0, 0, 0), (ALLOC, 0, 8, 0, 0)])
    table = bytearray(32)
    with heap_of() as heap:
        assert _core._replay(heap, *first, 0, False, None, table)[1] == 1
        address = int.from_bytes(table[16:24], sys.byteorder)
        assert [a for a, _, _ in heap.walk()] == [address] and not any(table[:8])
        assert int.from_bytes(table[24:], sys.byteorder) == 9000
        assert _core._replay(heap, *second, 0, False, None, table)[1] == 0  # one less, one more
        assert [size for _, size, _ in heap.walk()] == [8] and not any(table[16:24])


@pytest.mark.parametrize("table, error", [(bytearray(31), ValueError), (bytes(32), BufferError)])
def test_a_table_without_room_is_refused(table, error):
    columns = columns_of([(ALLOC, 1, 24, 0, 0)])
    with heap_of() as heap, pytest.raises(error):
        _core._replay(heap, *columns, 0, False, None, table)


# ---- Between batches ----

LONG = 1_000_000


def test_progress_is_told_how_many_events_have_run():
    told = []
    with heap_of() as heap:
        bsa.replay(churn(LONG), heap, progress=told.append)
    assert told == sorted(told) and told[-1] == LONG and len(told) > 5


def test_a_region_that_progress_adds_is_counted_as_managed():
    with heap_of() as heap:
        before = heap.managed_bytes

        def add_once(done):
            if len(heap.sections) == 1:
                heap.add_region(1 << 20)

        timeline = bsa.replay(churn(200_000), heap, samples=10, progress=add_once)
        assert timeline.managed == heap.managed_bytes > before
        assert timeline.allocated[-1] + timeline.free[-1] == timeline.managed


def test_an_exception_in_progress_ends_the_replay():
    def stop(done):
        raise StopIteration(done)

    with heap_of() as heap:
        with pytest.raises(StopIteration):
            bsa.replay(churn(LONG), heap, progress=stop)
        heap.free(heap.malloc(64))


def test_ctrl_c_ends_the_replay_and_the_allocator_stays_valid():
    interrupted = churn(4 * LONG)
    with heap_of() as heap:
        timer = threading.Timer(0.02, signal.raise_signal, [signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            while True:
                bsa.replay(interrupted, heap)
        timer.join()
        heap.check()
        assert bsa.replay(churn(100), heap).events == 100


def test_close_is_refused_while_a_replay_runs():
    refusals = []

    def try_to_close(done):
        try:
            heap.close()
        except bsa.InUseError as error:
            refusals.append(error)

    with heap_of() as heap:
        bsa.replay(churn(LONG), heap, progress=try_to_close)
        assert refusals and not heap.closed


def test_other_threads_wait_for_a_replay_and_get_their_turn():
    def use():
        started.wait()
        for _ in range(100):
            heap.free(heap.malloc(64))

    started = threading.Event()
    thread = threading.Thread(target=use)
    with heap_of() as heap:
        thread.start()
        bsa.replay(churn(LONG), heap, progress=lambda done: started.set())
        thread.join()
        assert len(heap) == 0


def take_away(act, bad="raise"):
    """Replays a trace whose one block `act(heap, address)` lays hands on meanwhile."""
    churning = [(ALLOC, 1, 64, 0, 0), (FREE, 1, 0, 0, 0)] * 100_000
    trace = Trace.from_events([(ALLOC, 0, 9000, 0, 0), *churning, (FREE, 0, 0, 0, 0)])
    results = []

    def progress(done):
        if not results:
            (address,) = (address for address, _, kind in heap.walk() if kind == "pages")
            results.append(act(heap, address))

    with heap_of() as heap:
        return bsa.replay(trace, heap, progress=progress, bad=bad)


def test_memory_that_a_block_has_taken_over_is_not_freed_under_it():
    with pytest.raises(bsa.InvalidParamError, match="another owner"):
        take_away(lambda heap, address: heap.block(address))


def test_memory_that_was_freed_meanwhile_is_not_freed_twice():
    with pytest.raises(bsa.NotAllocatedError, match="event"):
        take_away(lambda heap, address: heap.free(address))


def test_memory_with_another_owner_is_left_alone_where_bad_events_are_skipped():
    blocks = []
    timeline = take_away(lambda heap, address: blocks.append(heap.block(address)), bad="skip")
    assert timeline.skipped == {"taken": 1}
    assert (timeline.survivors, timeline.requested[-1]) == (0, 0)
    timeline = take_away(lambda heap, address: heap.free(address), bad="skip")
    assert timeline.skipped == {"refused": 1}


# ---- Timeline ----


def test_a_timeline_comes_back_from_pickle_equal():
    with heap_of() as heap:
        timeline = bsa.replay(random_trace(200, 1), heap, samples=20)
    again = pickle.loads(pickle.dumps(timeline))
    assert again == timeline
    assert timeline.origin and again.origin is None
    assert again.free_blocks == timeline.free_blocks


def test_the_columns_of_a_timeline_are_read_only():
    with heap_of() as heap:
        timeline = bsa.replay(churn(10), heap, samples=10)
    with pytest.raises(TypeError):
        timeline.event[0] = 7
    with pytest.raises(AttributeError):
        timeline.events = 7


def test_a_timeline_knows_its_heap_and_says_so():
    with heap_of(page_size=8192) as heap:
        timeline = bsa.replay(churn(10), heap)
        assert (timeline.page_size, timeline.managed) == (8192, heap.managed_bytes)
    assert "10 events" in repr(timeline)


@pytest.mark.parametrize("order, error", [(-1, ValueError), (ORDERS, ValueError), ("1", TypeError)])
def test_an_index_exists_for_the_orders_of_blocks_only(order, error):
    with heap_of() as heap:
        timeline = bsa.replay(churn(2), heap)
    for index in (timeline.unusable_index, timeline.extfrag_index, timeline.extfrag_percent):
        with pytest.raises(error):
            index(order)
