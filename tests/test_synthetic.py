"""Synthetic workloads: what they promise, and that they are the same everywhere."""

import zlib

import pytest

import bsa
from bsa import synthetic
from bsa.trace import TraceOp
from helpers import region_of_pages

WORKLOADS = [
    synthetic.fill_and_churn,
    synthetic.ramp,
    synthetic.sawtooth,
    synthetic.bimodal,
    synthetic.producer_consumer,
]


def checksum(trace):
    """Of all columns, as a machine of any byte order has them."""
    numbers = ",".join(map(str, (*trace.op, *trace.id, *trace.size, *trace.thread)))
    return zlib.crc32(numbers.encode("ascii"))


def live_counts(trace):
    """Blocks that live after each event."""
    live, counts = 0, []
    for op in trace.op:
        live += {TraceOp.ALLOC: 1, TraceOp.FREE: -1}[op]
        counts.append(live)
    return counts


def sizes_of(trace):
    return [event.size for event in trace if event.op == TraceOp.ALLOC]


@pytest.mark.parametrize(
    "workload, expected",
    list(zip(WORKLOADS, [961185505, 2556088076, 790427166, 1402205020, 2681267878])),
    ids=[workload.__name__ for workload in WORKLOADS],
)
def test_a_seed_gives_the_same_trace_everywhere(workload, expected):
    """On every Python and machine: the sums were computed once, by CPython 3.11 on x86-64."""
    assert checksum(workload(30_000, seed=7)) == expected


@pytest.mark.parametrize("workload", WORKLOADS)
def test_other_seeds_give_other_traces(workload):
    assert workload(1000, seed=1) == workload(1000, seed=1) != workload(1000, seed=2)


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("events", [1, 2, 3, 10, 999, 5000])
def test_a_workload_has_as_many_events_as_asked_for(workload, events):
    assert len(workload(events)) == events


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_meta_of_a_trace_makes_it_again(workload):
    trace = workload(500, seed=3)
    meta = {key: tuple(v) if isinstance(v, list) else v for key, v in trace.meta.items()}
    assert meta.pop("source") == "synthetic"
    assert getattr(synthetic, meta.pop("workload"))(**meta) == trace


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_workload_runs_on_a_heap(workload):
    trace = workload(5000)
    with bsa.Allocator(64 << 20, cpus=2) as heap:
        assert bsa.replay(trace, heap).events == 5000
        heap.check()


def test_sizes_are_drawn_evenly_from_powers_of_two_and_within_bounds():
    sizes = sizes_of(synthetic.ramp(40_000, sizes=(16, 4095)))
    assert min(sizes) >= 16 and max(sizes) <= 4095
    for power in range(4, 12):
        share = sum(1 << power <= size < 2 << power for size in sizes) / len(sizes)
        assert 0.11 < share < 0.14


@pytest.mark.parametrize("bounds", [(1, 1), (5, 6), (100, 1000), (1 << 40, 1 << 41)])
def test_any_bounds_of_sizes_are_kept_and_reached(bounds):
    sizes = sizes_of(synthetic.ramp(2000, sizes=bounds))
    assert bounds[0] <= min(sizes) and max(sizes) <= bounds[1]
    if bounds[1] - bounds[0] < 2:
        assert set(sizes) == set(bounds)


def test_fill_and_churn_fills_then_stays_level():
    counts = live_counts(synthetic.fill_and_churn(5000, live=1000))
    assert counts[:1000] == list(range(1, 1001))
    assert set(counts[1000:]) == {999, 1000}


def test_a_ramp_rises_then_falls_to_nothing():
    counts = live_counts(synthetic.ramp(5000))
    assert counts == [*range(1, 2501), *range(2499, -1, -1)]


def test_a_sawtooth_rises_and_falls_and_leaves_its_share():
    counts = live_counts(synthetic.sawtooth(10_000, teeth=5, kept=0.1))
    ends = counts[1999::2000]
    # A tooth of 2000 events frees the whole part of 2000 * 0.9 / 1.9 = 947 and allocates 1053.
    assert ends == [106, 212, 318, 424, 530]
    assert max(counts[:2000]) == 1053
    assert live_counts(synthetic.sawtooth(1000, teeth=1, kept=0))[-1] == 0


def test_bimodal_sizes_are_small_or_large_in_the_share_asked_for():
    sizes = sizes_of(synthetic.bimodal(40_000, live=1000, large_share=0.1))
    large = [size for size in sizes if size >= 8192]
    assert all(16 <= size <= 127 or 8192 <= size <= 65535 for size in sizes)
    assert 0.08 < len(large) / len(sizes) < 0.12


def test_large_blocks_of_bimodal_live_a_tenth_as_long():
    trace = synthetic.bimodal(100_000, live=1000, large_share=0.2)
    births, ages = {}, {True: [], False: []}
    for index, event in enumerate(trace):
        if event.op == TraceOp.ALLOC:
            births[event.id] = (index, event.size >= 8192)
        else:
            birth, is_large = births[event.id]
            ages[is_large].append(index - birth)
    mean = {kind: sum(some) / len(some) for kind, some in ages.items()}
    assert 7 < mean[False] / mean[True] < 13


def test_a_consumer_frees_in_order_what_a_producer_allocates():
    trace = synthetic.producer_consumer(5000, queue=50)
    assert trace.threads == 2
    assert max(live_counts(trace)) <= 50
    waiting = []
    for event in trace:
        assert event.thread == (event.op == TraceOp.FREE)
        if event.op == TraceOp.ALLOC:
            waiting.append(event.id)
        else:
            assert event.id == waiting.pop(0)


def test_the_adversary_never_has_more_live_than_it_says():
    trace = synthetic.buddy_adversary(5, unit=4096, blocks=256)
    assert trace.peak[1] == 256 * 4096
    assert {event.size for event in trace if event.size} == {4096 << k for k in range(6)}


@pytest.mark.parametrize("orders", [1, 2, 3, 6])
def test_the_adversary_needs_as_much_of_a_buddy_heap_as_knuth_says(orders):
    n = 4 << orders + 1
    trace = synthetic.buddy_adversary(orders, blocks=n)
    needed = n * (2 + orders) // 2
    with bsa.Allocator(region_of_pages(needed), cpus=1) as heap:
        bsa.replay(trace, heap)
    with bsa.Allocator(region_of_pages(needed - (1 << orders)), cpus=1) as heap:
        with pytest.raises(bsa.OutOfMemoryError):
            bsa.replay(trace, heap)


@pytest.mark.parametrize(
    "call",
    [
        lambda: synthetic.fill_and_churn(0),
        lambda: synthetic.fill_and_churn(live=0),
        lambda: synthetic.ramp(sizes=(0, 8)),
        lambda: synthetic.ramp(sizes=(9, 8)),
        lambda: synthetic.sawtooth(teeth=0),
        lambda: synthetic.sawtooth(kept=1.5),
        lambda: synthetic.bimodal(large_share=-0.1),
        lambda: synthetic.producer_consumer(queue=0),
        lambda: synthetic.buddy_adversary(0),
        lambda: synthetic.buddy_adversary(3, blocks=24),
        lambda: synthetic.buddy_adversary(3, unit=0),
    ],
)
def test_arguments_that_make_no_sense_are_refused(call):
    with pytest.raises(ValueError):
        call()


def test_a_seed_is_a_whole_number():
    for seed in (None, 1.5, "1"):
        with pytest.raises(TypeError):
            synthetic.ramp(10, seed=seed)
