"""Metrics: exact values, and against computations from the list of all free blocks."""

import math
import random
import struct

import pytest
from helpers import MIB, fragmentation_index, region_of_pages, unusable_free_index
from hypothesis import given
from hypothesis import strategies as st

import bsa
from bsa import metrics
from bsa.timeline import NUMBERS, ORDERS, Timeline

# Of every order few or many blocks, so that both ends of every formula are met.
COUNTS = st.lists(st.sampled_from([0, 0, 0, 1, 2, 7, 1000, 2**20]), min_size=1, max_size=ORDERS)
ORDER = st.integers(0, ORDERS - 1)


def blocks_of(counts):
    """Size in pages of every free block."""
    return [1 << order for order, count in enumerate(counts) for _ in range(count)]


# ---- Linux's indices ----


@pytest.mark.parametrize(
    "counts, order, unusable, fragmentation, extfrag",
    [
        # Nothing free: the two forms of one share disagree.
        ([0, 0, 0], 0, 1000, 0, 0),
        ([0, 0, 0], 2, 1000, 0, 0),
        # All of it usable, a part, none.
        ([3, 0, 0], 0, 0, -1000, 0),
        ([1, 1, 1], 1, 142, -1000, 14),
        ([1, 1, 0], 2, 1000, 125, 100),
        ([2, 0, 0], 2, 1000, 250, 100),
        # Many pieces: fragmentation. One: lack of memory; the index may go below 0.
        ([1000, 0, 0], 2, 1000, 749, 100),
        ([1, 0, 0], 10, 1000, 0, 100),
        ([0, 0, 1], 3, 1000, -500, 100),
    ],
)
def test_the_indices_have_the_kernel_s_values(counts, order, unusable, fragmentation, extfrag):
    assert metrics.unusable_free_index(counts, order) == unusable
    assert metrics.fragmentation_index(counts, order) == fragmentation
    assert metrics.extfrag_for_order(counts, order) == extfrag


@given(COUNTS, ORDER)
def test_the_indices_are_the_kernel_s_arithmetic(counts, order):
    pages = sum(count << o for o, count in enumerate(counts))
    suitable = sum(count << (o - order) for o, count in enumerate(counts) if o >= order)
    assert metrics.unusable_free_index(counts, order) == unusable_free_index(counts, order)
    assert metrics.fragmentation_index(counts, order) == fragmentation_index(counts, order)
    share = (pages - (suitable << order)) * 100 // pages if pages else 0
    assert metrics.extfrag_for_order(counts, order) == share


@given(COUNTS, ORDER)
def test_extfrag_for_order_is_the_unusable_index_but_where_nothing_is_free(counts, order):
    unusable = metrics.unusable_free_index(counts, order)
    assert metrics.extfrag_for_order(counts, order) == (unusable // 10 if any(counts) else 0)


# ---- Sums over free blocks ----

FEW = st.lists(st.integers(0, 5), min_size=1, max_size=12)


@given(FEW, ORDER)
def test_the_sums_are_those_over_all_blocks(counts, order):
    blocks = blocks_of(counts)
    assert metrics.free_pages(counts) == sum(blocks)
    assert metrics.largest_hole(counts) == max(blocks, default=0)
    assert metrics.usable_pages(counts, order) == sum(b for b in blocks if b >= 2**order)
    index = 1 - math.sqrt(sum(b * b for b in blocks)) / sum(blocks) if blocks else 0
    assert metrics.sum_of_squares_index(counts) == pytest.approx(index)


@pytest.mark.parametrize("counts, index", [([4], 0.5), ([0, 0, 100], 0.9), ([0, 1], 0), ([0], 0)])
def test_n_equal_blocks_have_a_sum_of_squares_index_of_1_less_1_by_root_n(counts, index):
    assert metrics.sum_of_squares_index(counts) == pytest.approx(index)


@pytest.mark.parametrize(
    "page_size, counts, share",
    [
        (4096, [512, 0, 0, 0, 0, 0, 0, 0, 0, 1], 0.5),
        (4096, [0, 0, 0, 0, 0, 0, 0, 0, 2], 0),
        (1 << 20, [2, 1], 0.5),
        (2 << 20, [3], 1),
        (256, [0] * 13 + [1, 1], 1),
        (4096, [0, 0], 0),
    ],
)
def test_the_huge_share_is_what_lies_in_blocks_of_2_mib(page_size, counts, share):
    assert metrics.huge_share(counts, page_size) == share


# ---- Runs ----


def heap_with_every_other_page_free(pages=64):
    heap = bsa.Allocator(region_of_pages(pages))
    blocks = [heap.alloc_pages(1) for _ in range(pages)]
    blocks.sort(key=lambda block: block.address)
    return heap, blocks


def test_buddies_cannot_merge_two_pages_that_are_no_buddies():
    heap, blocks = heap_with_every_other_page_free()
    blocks[7].free()
    blocks[8].free()  # neighbours, but of different parents
    assert metrics.free_runs(heap) == (2,)
    assert heap.free_blocks()[:2] == (2, 0)
    assert metrics.unusable_of_runs(metrics.free_runs(heap), 1) == 0
    assert metrics.unusable_free_index(heap.free_blocks(), 1) == 1000


def test_runs_are_in_address_order_and_end_with_their_section():
    with bsa.Allocator(1 << 20) as heap:
        heap.add_region(2 << 20)
        assert metrics.free_runs(heap) == tuple(s.total_pages for s in heap.sections)
        heap.alloc_pages(1).detach()
        assert sum(metrics.free_runs(heap)) == heap.free_pages


@given(st.integers(0, 2**32), ORDER)
def test_runs_serve_whatever_the_buddies_do_and_more(seed, order):
    rng = random.Random(seed)
    heap, blocks = heap_with_every_other_page_free()
    for block in rng.sample(blocks, rng.randrange(64)):
        block.free()
    runs, counts = metrics.free_runs(heap), heap.free_blocks()
    assert sum(runs) == heap.free_pages
    assert metrics.unusable_of_runs(runs, order) <= metrics.unusable_free_index(counts, order)


# ---- Footprints ----


def test_the_mean_footprint_averages_the_ratios_of_all_points_where_something_is_live():
    assert metrics.mean_footprint([10, 20, 30, 99], [10, 10, 20, 0]) == (1 + 2 + 1.5) / 3
    assert math.isnan(metrics.mean_footprint([5], [0]))
    with pytest.raises(ValueError):
        metrics.mean_footprint([1, 2], [1])


def test_the_peak_footprint_takes_both_peaks_wherever_they_are():
    assert metrics.peak_footprint([10, 40, 20], [10, 8, 20]) == 2
    assert math.isnan(metrics.peak_footprint([5], [0]))
    assert math.isnan(metrics.times_peak(4096, 0))
    assert metrics.times_peak(30, 20) == 1.5


# ---- Knuth's bound ----


@pytest.mark.parametrize(
    "live, order, pages", [(1, 0, 1), (64, 3, 256), (65, 3, 288), (0, 5, 0), (1, 4, 80)]
)
def test_knuth_s_bound_is_a_multiple_of_the_largest_block(live, order, pages):
    assert metrics.knuth_bound(live, order) == pages


def pages_of(heap, count):
    return heap.alloc_pages(count).detach()


@pytest.mark.parametrize("order", range(1, 6))
def test_the_adversary_of_the_buddy_bound_needs_much_and_gets_it(order):
    """Knuth's: single pages; then all but every 2^k-th are freed, and blocks of 2^k taken."""
    pages = 2 << order
    heap = bsa.Allocator(region_of_pages(metrics.knuth_bound(pages, order), align=16 * MIB))
    start = heap.sections[0].start
    live = [pages_of(heap, 1) for _ in range(pages)]
    for k in range(1, order + 1):
        kept = [address for address in live if (address - start) // 4096 % 2**k == 0]
        heap.free_many([address for address in live if address not in kept])
        live = kept + [pages_of(heap, 2**k) for _ in range(pages >> k + 1)]
        assert heap.allocated_bytes <= pages * 4096
    highest = max((address - start) // 4096 for address in live) + 2**order
    assert highest >= (1 + order / 2) * pages


@given(st.integers(0, 2**32), st.integers(0, 5), st.integers(1, 6))
def test_a_heap_of_the_bound_never_overflows(seed, order, times):
    most = times << order
    rng = random.Random(seed)
    heap = bsa.Allocator(region_of_pages(metrics.knuth_bound(most, order)))
    live, held = [], 0
    for _ in range(200):
        size = 1 << rng.randrange(order + 1)
        if held + size <= most:
            live.append((pages_of(heap, size), size))
            held += size
        while live and (held == most or rng.random() < 0.4):
            address, size = live.pop(rng.randrange(len(live)))
            heap.free(address)
            held -= size


# ---- The timeline computes the same ----


def timeline_of(**numbers):
    """One of a single sample with these numbers, all others 0."""
    row = dict.fromkeys(NUMBERS, 0) | numbers
    rows = struct.pack(f"={len(row)}q", *row.values()) + bytes(3 * 8 * ORDERS)
    return Timeline(rows, 1, 0, 4096, 1 << 20)


def test_a_timeline_gives_0_for_shares_of_nothing():
    timeline = timeline_of(allocated=1 << 20)
    assert timeline.huge_share == timeline.sum_of_squares_index == (0.0,)
    assert timeline.extfrag_percent(0) == (0,)
    assert math.isnan(timeline.mean_footprint) and math.isnan(timeline.peak_footprint)


def test_the_footprints_of_a_timeline_are_of_its_columns():
    timeline = timeline_of(
        allocated=30, requested=20, peak_allocated=90, peak_requested=60, free=8192, free_squares=4
    )
    assert timeline.mean_footprint == timeline.peak_footprint == 1.5
    assert timeline.sum_of_squares_index == (0.0,)
