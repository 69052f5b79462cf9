"""The strategies of bsa.testing draw what they say."""

import sys

import pytest

pytest.importorskip("hypothesis")
from hypothesis import find, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import bsa  # noqa: E402
from bsa.testing import models, run_program, strategies  # noqa: E402

few = settings(max_examples=30)


@given(strategies.sizes(5000))
def test_sizes_keep_to_the_limit(size):
    assert 0 <= size <= 5000


def test_borders_are_there_with_their_neighbours():
    borders = strategies.border_sizes(sys.maxsize, page_size=8192, region=12345)
    for size in (1, 64, 1 << 62, 4096, 8192, 112, 7168, 32768, 12345):
        assert {size - 1, size, size + 1} <= set(borders)
    assert borders[0] == 0 and borders[-1] == sys.maxsize


def test_sizes_come_to_borders():
    assert find(strategies.sizes(), lambda size: size > 1 << 40)


@given(strategies.alignments(4096))
def test_alignments_are_powers_of_two(align):
    assert align is None or 1 <= align <= 4096 and align & (align - 1) == 0


@given(strategies.huge_sizes())
def test_huge_sizes_are_refused(size):
    with bsa.Allocator(1 << 20, cpus=1) as heap, pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(size)


@few
@given(strategies.buffers(20000, 40000))
def test_buffers_serve_as_regions(buffer):
    size = memoryview(buffer).nbytes
    assert 20000 <= size <= 40000
    with bsa.Allocator(buffer, page_size=256, cpus=1) as heap:
        assert heap.sections[0].region_size == size
        heap.alloc_from(b"something")
        heap.check()


@pytest.mark.parametrize("kind", ["bytearray", "array", "c_ubyte", "mmap", "memoryview"])
def test_buffers_are_of_every_kind(kind):
    assert find(strategies.buffers(), lambda buffer: kind in type(buffer).__name__) is not None


@few
@given(strategies.configurations(), st.sampled_from(["allocator", "buddy", "slab"]))
def test_configurations_are_setups(setup, machine):
    run_program({"machine": machine, "setup": setup, "steps": [("malloc", 40000)]})


@given(strategies.configurations([256, 512]))
def test_page_sizes_may_be_a_list(setup):
    assert setup["page_size"] in (256, 512)


@pytest.mark.parametrize(
    "draw, told",
    [
        (lambda: strategies.alignments(0), "most must be at least 1, not 0"),
        (lambda: strategies.sizes(-1), "most must be at least 0, not -1"),
        (lambda: strategies.buffers(9, 8), "max_size must be at least 9, not 8"),
        (lambda: strategies.regions(4096, 0), "max_pages must be at least 1, not 0"),
        (lambda: strategies.configurations(max_cpus=0), "max_cpus must be at least 1, not 0"),
    ],
)
def test_a_strategy_of_nothing_is_refused(draw, told):
    with pytest.raises(ValueError, match=told):
        draw()


@few
@given(st.sampled_from(strategies.PAGE_SIZES).flatmap(strategies.regions))
def test_regions_have_room(region):
    offset, size, physical = region
    assert offset >= 0 and size > 0 and (physical is None or physical >= 0)


@given(strategies.traces(40, max_size=5000, max_threads=2))
def test_traces_are_possible_histories(trace):
    assert len(trace) <= 40
    assert max(trace.size, default=0) <= 5000
    assert trace.threads <= 2
    with bsa.Allocator(8 << 20, cpus=2) as heap:
        assert bsa.replay(trace, heap).events == len(trace)
        heap.check()


@given(strategies.traces())
def test_traces_use_ids_again(trace):
    live = most = 0
    for op in trace.op:
        live += {bsa.TraceOp.FREE: -1, bsa.TraceOp.REALLOC: 0}.get(op, 1)
        most = max(most, live)
    assert trace.ids == most


# --- models


@pytest.mark.parametrize("page_size", [256, 512, 1024, 4096, 16384, 65536, 1 << 20])
def test_size_classes_are_those_of_bsa(page_size):
    with bsa.Allocator(page_size=page_size, cpus=1) as heap:
        assert models.size_classes(page_size) == heap.size_classes


def test_models_know_the_largest_order():
    assert models.MAX_ORDER == bsa.MAX_ORDER
