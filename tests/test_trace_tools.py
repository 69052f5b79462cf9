"""What can be done with traces: results are valid, and figures those of a naive count."""

import re
from collections import Counter
from fractions import Fraction
from xml.etree import ElementTree

import pytest

import bsa
from bsa import synthetic
from bsa.trace import TraceError, TraceOp

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, strategies as st  # noqa: E402
from test_trace import histories  # noqa: E402

ALLOC, ZALLOC, REALLOC, FREE = TraceOp

EVENTS = [
    (ALLOC, 0, 100, 0, 0),
    (ZALLOC, 1, 40, 64, 1),
    (REALLOC, 0, 3000, 0, 1),
    (FREE, 1, 0, 0, 0),
    (ALLOC, 1, 8, 0, 0),
    (FREE, 0, 0, 0, 0),
]


@pytest.fixture
def trace():
    return bsa.Trace.from_events(EVENTS, meta={"command": ["a"]})


traces = histories().map(bsa.Trace.from_events)


def events_of(trace):
    return [tuple(event) for event in trace]


def live_after(events):
    """{id: size} of what lives at the end."""
    live = {}
    for op, id, size, _, _ in events:
        if op == FREE:
            del live[id]
        else:
            live[id] = size
    return live


def is_valid(trace):
    columns = (trace.op, trace.id, trace.size, trace.align, trace.thread)
    return bsa.Trace(*columns) == trace


# ---- window ----


def test_a_window_begins_with_what_was_live(trace):
    assert events_of(trace.window(3)) == [
        (ALLOC, 0, 3000, 0, 0),
        (ZALLOC, 1, 40, 64, 1),
        *EVENTS[3:],
    ]
    assert events_of(trace.window(4, 5)) == [(ALLOC, 0, 3000, 0, 0), (ALLOC, 1, 8, 0, 0)]
    assert trace.window(3).meta == trace.meta


def test_a_window_of_everything_is_the_trace(trace):
    assert trace.window(0) == trace.window(-6, 99) == trace
    assert events_of(trace.window(6)) == [(ALLOC, 1, 8, 0, 0)]
    assert trace.window(5, 2) == trace.window(5, 5)


def test_large_ids_of_a_window_are_numbered_anew():
    events = [(ALLOC, i, 8, 0, 0) for i in range(70_000)]
    events += [(FREE, i, 0, 0, 0) for i in range(70_000) if i != 69_999]
    window = bsa.Trace.from_events(events).window(-1)
    assert events_of(window) == [
        (ALLOC, 0, 8, 0, 0),
        (ALLOC, 1, 8, 0, 0),
        (FREE, 0, 0, 0, 0),
    ]


@given(traces, st.data())
def test_any_window_is_valid_and_ends_as_the_trace_did(trace, data):
    start = data.draw(st.integers(0, len(trace)))
    stop = data.draw(st.integers(start, len(trace)))
    window = trace.window(start, stop)
    before = live_after(events_of(trace)[:start])
    assert is_valid(window)
    assert len(window) == len(before) + stop - start
    assert live_after(events_of(window)) == live_after(events_of(trace)[:stop])
    assert events_of(window)[len(before) :] == events_of(trace)[start:stop]


# ---- scaled, repeated, on_threads ----


def test_sizes_are_scaled_and_rounded_up(trace):
    assert list(trace.scaled(2).size) == [200, 80, 6000, 0, 16, 0]
    assert list(trace.scaled(0.01).size) == [1, 1, 30, 0, 1, 0]
    assert list(trace.scaled(1e-9).size) == [1, 1, 1, 0, 1, 0]
    assert list(trace.scaled(Fraction(1, 3)).size) == [34, 14, 1000, 0, 3, 0]
    assert trace.scaled(1) == trace


def test_a_size_that_is_none_is_refused(trace):
    with pytest.raises(ValueError, match="not negative"):
        trace.scaled(-1)
    with pytest.raises(ValueError, match="2\\^64 bytes"):
        trace.scaled(2**60)


@given(traces, st.fractions(0, 4))
def test_scaling_changes_sizes_only(trace, factor):
    scaled = trace.scaled(factor)
    assert is_valid(scaled)
    for old, new in zip(trace, scaled):
        assert old._replace(size=0) == new._replace(size=0)
        assert old.size * factor <= new.size < old.size * factor + 1


def test_a_repeated_trace_frees_what_survives_a_round(trace):
    assert events_of(trace.repeated(2)) == [*EVENTS, (FREE, 1, 0, 0, 0), *EVENTS]
    assert trace.repeated(1) == trace
    with pytest.raises(ValueError, match="once or more often"):
        trace.repeated(0)


@given(traces, st.integers(1, 4))
def test_a_repeated_trace_is_valid_and_has_the_same_peak(trace, times):
    repeated = trace.repeated(times)
    survivors = live_after(events_of(trace))
    assert is_valid(repeated)
    assert repeated.peak == trace.peak
    assert len(repeated) == times * len(trace) + (times - 1) * len(survivors)
    assert live_after(events_of(repeated)) == survivors


def test_threads_become_fewer(trace):
    assert list(trace.on_threads(1).thread) == [0] * 6
    assert trace.on_threads(2) == trace
    with pytest.raises(ValueError, match="one thread or more"):
        trace.on_threads(0)


# ---- merged ----


def test_merged_traces_go_on_side_by_side(trace):
    other = bsa.Trace.from_events([(ALLOC, 0, 7, 0, 0), (FREE, 0, 0, 0, 0)])
    merged = bsa.Trace.merged([trace, other], meta={"what": "both"})
    first, second = [(ALLOC, 2, 7, 0, 2)], [(FREE, 2, 0, 0, 2)]
    assert events_of(merged) == EVENTS[:2] + first + EVENTS[2:5] + second + EVENTS[5:]
    assert merged.meta == {"what": "both"}
    assert (merged.ids, merged.threads) == (3, 3)


def test_merging_nothing_is_nothing_and_others_than_traces_are_refused(trace):
    assert len(bsa.Trace.merged([])) == 0
    assert bsa.Trace.merged([trace]) == trace
    with pytest.raises(TypeError, match="iterable of bsa.Trace"):
        bsa.Trace.merged([trace, EVENTS])


def shape(events):
    """What an event does, without how block and thread are called."""
    return [(op, size, align) for op, _, size, align, _ in events]


@given(st.lists(traces, max_size=4))
def test_a_merged_trace_is_valid_and_keeps_each_trace_in_order(parts):
    merged = bsa.Trace.merged(parts)
    assert is_valid(merged)
    assert len(merged) == sum(map(len, parts))
    assert Counter(shape(merged)) == Counter(event for part in parts for event in shape(part))
    lives = [size for part in parts for size in live_after(part).values()]
    assert sorted(live_after(merged).values()) == sorted(lives)
    if merged.threads == sum(part.threads for part in parts):  # not numbered anew
        start = 0
        for part in parts:
            own = [e for e in merged if start <= e.thread < start + part.threads]
            assert shape(own) == shape(part)
            start += part.threads


# ---- statistics ----


def test_statistics_of_a_small_trace(trace):
    s = trace.statistics()
    assert (s.events, s.allocations, s.reallocations, s.frees) == (6, 3, 1, 2)
    assert (s.peak, s.peak_blocks) == ((2, 3040), 2)
    assert (s.survivors, s.survivor_bytes) == (1, 8)
    assert (s.sizes.count, s.sizes.total, s.sizes.least, s.sizes.most) == (4, 3148, 8, 3000)
    assert (s.sizes.median, s.sizes.mean) == (40, 787.0)
    assert s.sizes.histogram == {8: 1, 64: 1, 128: 1, 4096: 1}
    assert s.common_sizes == ((8, 1), (40, 1), (100, 1), (3000, 1))
    # Id 1 lives from event 1 to 3, id 0 from 0 to 5.
    assert (s.lifetimes.count, s.lifetimes.least, s.lifetimes.most) == (2, 2, 5)
    assert (s.lifetimes_bytes.least, s.lifetimes_bytes.most) == (3000, 3048)
    first, second = s.threads
    assert (first.events, first.allocations, first.frees, first.remote_frees) == (4, 2, 2, 1)
    assert (second.reallocations, second.requested_bytes) == (1, 3040)


def test_statistics_of_nothing_are_zeros():
    s = bsa.Trace.from_events([]).statistics()
    assert (s.events, s.peak, s.survivors, s.common_sizes, s.threads) == (0, (0, 0), 0, (), ())
    assert (s.sizes.count, s.sizes.median, s.sizes.mean, s.sizes.histogram) == (0, 0, 0.0, {})


def test_common_sizes_come_most_frequent_first_and_ten_at_most():
    sizes = [size for size in range(1, 15) for _ in range(size)]
    trace = bsa.Trace.from_events((ALLOC, i, size, 0, 0) for i, size in enumerate(sizes))
    assert trace.statistics().common_sizes == tuple((size, size) for size in range(14, 4, -1))


def naive_distribution(numbers):
    numbers = sorted(numbers)
    powers = Counter(next(p for p in (0, *(1 << k for k in range(70))) if p >= n) for n in numbers)
    count = len(numbers)
    return (
        count,
        sum(numbers),
        numbers[0] if numbers else 0,
        numbers[(count - 1) // 2] if numbers else 0,
        numbers[-1] if numbers else 0,
        dict(powers),
    )


def fields(distribution):
    d = distribution
    return d.count, d.total, d.least, d.median, d.most, d.histogram


@given(traces)
def test_statistics_are_those_of_a_naive_count(trace):
    events, s = events_of(trace), trace.statistics()
    requests = [size for op, _, size, _, _ in events if op != FREE]
    assert fields(s.sizes) == naive_distribution(requests)
    ages, ages_in_bytes, remote, most = [], [], Counter(), 0
    for end, (op, id, _, _, thread) in enumerate(events):
        most = max(most, len(live_after(events[: end + 1])))
        if op == FREE:
            birth = max(i for i in range(end) if events[i][1] == id and events[i][0] <= ZALLOC)
            ages.append(end - birth)
            ages_in_bytes.append(sum(e[2] for e in events[birth + 1 : end] if e[0] != FREE))
            remote[thread] += events[birth][4] != thread
    assert fields(s.lifetimes) == naive_distribution(ages)
    assert fields(s.lifetimes_bytes) == naive_distribution(ages_in_bytes)
    live = live_after(events)
    assert (s.survivors, s.survivor_bytes) == (len(live), sum(live.values()))
    assert (s.peak, s.peak_blocks) == (trace.peak, most)
    for t in s.threads:
        own = [event for event in events if event[4] == t.thread]
        ops = Counter(event[0] for event in own)
        assert t.events == len(own)
        assert (t.reallocations, t.frees) == (ops[REALLOC], ops[FREE])
        assert t.allocations == ops[ALLOC] + ops[ZALLOC]
        assert t.remote_frees == remote[t.thread]
        assert t.requested_bytes == sum(event[2] for event in own if event[0] != FREE)
    assert [t.thread for t in s.threads] == sorted(set(trace.thread))


# ---- What Jupyter shows ----


def parsed(trace):
    """The fragment as XML: it must be well-formed."""
    html = trace._repr_html_()
    assert len(html) < 300_000
    assert not re.search("<script|<style|<link|http(?!://www.w3.org/2000/svg)", html)
    return ElementTree.fromstring(html)


def words(tree):
    return " ".join(text.strip() for text in tree.itertext())


def test_a_trace_shows_its_figures_and_sizes(trace):
    tree = parsed(trace)
    text = words(tree)
    for shown in (
        "6: 3 allocations, 1 reallocation, 2 frees",
        "2: thread 0 66.7 %, thread 1 33.3 %",
    ):
        assert shown in text
    for shown in ("2.97 KiB, after event 2", "command a", "up to 128 B: 1 request, 25.0 %"):
        assert shown in text
    svg = "{http://www.w3.org/2000/svg}"
    assert tree.find(f"{svg}svg/{svg}title").text == "Sizes and lifetimes"


def test_an_empty_trace_shows_that_it_is():
    tree = parsed(bsa.Trace.from_events([]))
    assert "events 0: 0 allocations" in words(tree)
    assert tree.find("{http://www.w3.org/2000/svg}svg") is None


def test_what_was_odd_is_shown():
    trace = bsa.Trace.from_columns([4, 1], [9, 9], [0, 8], bad="skip")
    assert "unknown frees: 1" in words(parsed(trace))
    trace.meta["lost"] = 1234
    assert "unknown frees: 1, lost: 1,234" in words(parsed(trace))


def test_that_the_program_failed_or_recording_it_ended_is_shown(trace):
    trace.meta.update(status=0, cut=False)
    assert not re.search("failed|cut short", words(parsed(trace)))
    trace.meta.update(status=139, cut=True)
    assert "status 139: the program failed recording cut short" in words(parsed(trace))


def test_words_of_others_are_escaped_and_cut(trace):
    trace.meta["command"] = ["<script>alert(1)</script>", "x" * 100_000]
    trace.meta["source"] = "<b>"
    assert len(trace._repr_html_()) < 20_000
    assert "<b>" in words(parsed(trace))


def test_any_number_of_threads_and_sizes_stays_small():
    events = ((ALLOC, i, 1 << (i % 50), 0, i) for i in range(60_000))
    parsed(bsa.Trace.from_events(events))


@given(traces)
def test_any_trace_can_be_shown(trace):
    parsed(trace)


def test_a_window_of_a_long_trace_replays_from_the_right_state():
    trace = synthetic.fill_and_churn(20_000, live=500)
    with bsa.Allocator(16 << 20, cpus=1) as heap, bsa.Allocator(16 << 20, cpus=1) as other:
        whole = bsa.replay(trace, heap)
        part = bsa.replay(trace.window(15_000), other)
        assert part.requested[-1] == whole.requested[-1]
        assert part.survivors == whole.survivors


def test_a_trace_that_is_scaled_too_far_is_refused_as_a_trace(trace):
    with pytest.raises(TraceError, match="more than 2\\^64 bytes"):
        bsa.Trace.from_events([(ALLOC, i, 1 << 60, 0, 0) for i in range(4)]).scaled(4)
