"""The smallest heap: what it promises, against trying in Python."""

import contextlib
import os

import pytest
from test_replay import random_trace

import bsa
from bsa.sizing import comfortable
from bsa.trace import Trace, TraceOp

ALLOC, ZALLOC, REALLOC, FREE = TraceOp


def fits(trace, size, cpus=3, **options):
    with contextlib.suppress(bsa.OutOfMemoryError, bsa.InvalidParamError):
        with bsa.Allocator(size, cpus=cpus, **options) as heap:
            bsa.replay(trace, heap)
            return True
    return False


@pytest.mark.parametrize("page_size", [256, 4096, 16384])
@pytest.mark.parametrize("seed", range(3))
def test_the_smallest_heap_is_enough_and_one_page_less_is_not(page_size, seed):
    trace = random_trace(1000, seed)
    size = bsa.smallest_heap(trace, page_size=page_size, cpus=3)
    assert size % page_size == 0
    assert fits(trace, size, page_size=page_size)
    assert not fits(trace, size - page_size, page_size=page_size)


def bisected(trace, cpus):
    """The same search, with Allocators and replays; page size 4096."""
    too_small = max(trace.peak[1] - 1, 0) // 4096
    enough = too_small + too_small // 8 + 8
    while not fits(trace, enough * 4096, cpus):
        too_small, enough = enough, enough + enough // 4
    while enough - too_small > 1:
        pages = (too_small + enough) // 2
        if fits(trace, pages * 4096, cpus):
            enough = pages
        else:
            too_small = pages
    return enough * 4096


@pytest.mark.parametrize("cpus", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_search_in_c_sees_the_heaps_that_allocators_are(cpus, seed):
    trace = random_trace(700, seed + 10)
    assert bsa.smallest_heap(trace, cpus=cpus) == bisected(trace, cpus)


def test_an_event_of_which_a_larger_heap_takes_no_notice_is_named():
    too_large = Trace.from_events([(ALLOC, 1, 8, 0, 0), (ALLOC, 0, 257 << 20, 0, 0)])
    with pytest.raises(bsa.OutOfMemoryError, match=r"^event 1 \(alloc\): .*269484032 bytes"):
        bsa.smallest_heap(too_large, page_size=256)
    assert bsa.smallest_heap(too_large) > 257 << 20


def test_memory_that_no_system_has_is_an_out_of_memory_error():
    huge = [(ALLOC, block, 1 << 31, 0, 0) for block in range(1 << 17)]
    with pytest.raises(bsa.OutOfMemoryError, match="cannot map"):
        bsa.smallest_heap(Trace.from_events(huge))


@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="a terabyte's shadow would be memory"
)
def test_more_pages_than_a_heap_can_number_are_an_out_of_memory_error():
    huge = [(ALLOC, block, 1 << 28, 0, 0) for block in range((1 << 12) + 1)]
    with pytest.raises(bsa.OutOfMemoryError, match="into no heap with pages of 256 bytes"):
        bsa.smallest_heap(Trace.from_events(huge), page_size=256)


def test_a_trace_without_events_needs_a_heap_of_one_page():
    size = bsa.smallest_heap(Trace.from_events([]))
    with bsa.Allocator(size) as heap:
        assert heap.total_pages == 1


@pytest.mark.parametrize(
    "options, error",
    [
        ({"page_size": 3000}, bsa.InvalidParamError),
        ({"page_size": 2**70}, OverflowError),
        ({"cpus": 0}, bsa.InvalidParamError),
        ({"cpus": 65536}, bsa.InvalidParamError),
        ({"cpus": 1.5}, TypeError),
    ],
)
def test_what_no_allocator_takes_is_refused(options, error):
    with pytest.raises(error):
        bsa.smallest_heap(random_trace(10, 0), **options)


def test_only_a_trace_will_do():
    with pytest.raises(TypeError, match="list"):
        bsa.smallest_heap([])


def test_progress_is_told_each_size_and_its_events():
    trace, told = random_trace(300, 1), []
    size = bsa.smallest_heap(trace, cpus=3, progress=lambda *told_now: told.append(told_now))
    sizes = [tried for tried, _ in told]
    assert size in sizes and size - 4096 in sizes
    assert dict(told)[size] == len(trace)  # it ran to the end
    assert dict(told)[size - 4096] < len(trace)


def test_an_exception_in_progress_ends_the_search():
    def stop(size, events):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bsa.smallest_heap(random_trace(300, 1), progress=stop)


@pytest.mark.parametrize(
    "size, rounded", [(1, 1), (9, 10), (20, 20), (21, 24), (33 << 20, 40 << 20)]
)
def test_a_comfortable_size_has_three_binary_digits(size, rounded):
    assert comfortable(size) == rounded
