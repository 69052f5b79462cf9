"""Views of timelines, comparisons and traces."""

import collections
import random
import xml.etree.ElementTree as ElementTree
from array import array

import pytest

import bsa
from bsa import views
from bsa.timeline import NUMBERS, ORDERS
from bsa.views import colours, frame
from bsa.views.histograms import bars

SVG = "{http://www.w3.org/2000/svg}"


def parsed(view):
    return ElementTree.fromstring(str(view.picture()))


def titles(root):
    return [element[0].text for element in root.iter() if len(element) == 1]


def some_trace(events=4000, seed=1):
    rng, live, rows = random.Random(seed), [], []
    for _ in range(events):
        if rng.random() < 0.55 or not live:
            id = next(i for i in range(events) if i not in live)
            live.append(id)
            rows.append((1, id, min(int(rng.expovariate(1 / 2000)), 60_000), 0, 0))
        else:
            rows.append((4, live.pop(rng.randrange(len(live))), 0, 0, 0))
    return bsa.Trace.from_events(rows)


@pytest.fixture(scope="module")
def trace():
    return some_trace()


@pytest.fixture(scope="module")
def timeline(trace):
    with bsa.Allocator(4 << 20, cpus=1) as heap:
        return bsa.replay(trace, heap, samples=500)


# --- memory over time ---


def test_the_bands_add_up_to_the_heap(timeline):
    events, stacked = views.memory_timeline(timeline).bands()
    assert [sum(heights) for heights in zip(*stacked)] == [timeline.managed] * len(events)
    at = {event: sample for sample, event in enumerate(timeline.event)}
    requested, rounded, slack, free = stacked
    for k, event in enumerate(events):
        sample = at[event]
        assert requested[k] == timeline.requested[sample]
        losses = timeline.class_rounding[sample] + timeline.page_rounding[sample]
        assert rounded[k] == losses
        assert slack[k] == timeline.slab_slack[sample]
        assert free[k] == timeline.free[sample]


def test_each_band_is_an_area_with_its_name(timeline):
    assert titles(parsed(views.memory_timeline(timeline))) == [
        "requested",
        "lost by rounding up",
        "held beyond that",
        "free",
    ]


def test_of_a_heap_that_is_hardly_used_only_the_lower_part_is_drawn(trace):
    with bsa.Allocator(1 << 30, cpus=1) as heap:
        view = views.memory_timeline(bsa.replay(trace, heap, samples=10))
    assert max(view.timeline.allocated) < view.top < view.timeline.managed
    texts = [text.text for text in parsed(view).iter(SVG + "text")]
    assert any("more are free above" in text for text in texts)


def test_telling_samples_keep_the_extremes():
    values = [500] * 50_000
    values[33_333], values[44_444] = 999, 3
    chosen = frame.telling_samples(values, 100)
    assert len(chosen) <= 202
    assert {0, 33_333, 44_444, 49_999} <= set(chosen)


# --- orders over time ---


def test_the_rows_of_the_order_map_are_orders_and_its_shades_are_counts(timeline):
    view = views.order_map(timeline)
    free, unusable, extfrag = view.tables()
    assert len(free) == len(unusable) == len(extfrag) == 10, "4 MiB less metadata"
    counts = timeline.free_blocks
    for order, row in enumerate(free):
        for sample, share in enumerate(row):
            count = counts[sample][order]
            assert (share == 0) == (count == 0)
            assert 0 <= share <= 1
        assert list(unusable[order]) == list(timeline.unusable_index(order))
    assert max(map(max, free)) == 1


def test_only_a_request_that_would_fail_has_a_fragmentation_index(timeline):
    _, _, extfrag = views.order_map(timeline).tables()
    for order, row in enumerate(extfrag):
        for value, index in zip(row, timeline.extfrag_index(order)):
            assert (value > 0) == (index >= 0)


def test_spans_of_the_order_map_cover_the_events(timeline):
    view = views.order_map(timeline)
    _, unusable, _ = view.tables()
    always = [[1.0] * len(timeline)]
    ((span,),) = view.rows(always, colours.BLUE)
    assert (span.start, span.end) == (0, timeline.events)
    for row in view.rows(unusable, colours.BLUE):
        ends = [span.end for span in row]
        assert all(end <= span.start for end, span in zip(ends, row[1:]))


# --- histograms ---


def test_bars_are_the_requests_by_size(trace):
    root = parsed(views.histograms(trace))
    counted = collections.Counter()
    for size in (event.size for event in trace if event.op != bsa.TraceOp.FREE):
        counted[1 << (size - 1).bit_length() if size else 0] += 1
    for power, count in counted.items():
        text = f"up to {bsa.units.format_size(power)}: {count:,} requests"
        assert any(title.startswith(text) for title in titles(root)), text
    frees = sum(event.op == bsa.TraceOp.FREE for event in trace)
    assert any(f"{frees:,} freed blocks" in text.text for text in root.iter(SVG + "text"))


def test_the_heights_of_bars_are_their_counts():
    trace = bsa.Trace.from_events([(1, k, 16 if k < 30 else 4000, 0, 0) for k in range(40)])
    root = parsed(views.histograms(trace))
    high, low = (
        next(
            float(r.get("height")) for r in root.iter(SVG + "rect") if len(r) and text in r[0].text
        )
        for text in ("up to 16 B", "up to 4 KiB")
    )
    assert high == pytest.approx(3 * low, abs=0.2)


def test_between_two_bars_there_are_all_powers():
    assert bars({2: 5, 16: 1}) == [(2, 5), (4, 0), (8, 0), (16, 1)]
    assert bars({0: 1, 2: 1}) == [(0, 1), (1, 0), (2, 1)]
    assert bars({}) == []


# --- comparisons ---


@pytest.fixture(scope="module")
def comparison(trace):
    from concurrent.futures import ThreadPoolExecutor

    kinds = {"4k": {"cpus": 1}, "16k": {"page_size": 16384, "cpus": 1}, "tiny": {"size": 65536}}
    with ThreadPoolExecutor(1) as executor:
        return bsa.compare(trace, kinds, executor=executor)


def test_the_parts_of_a_bar_add_up_to_the_heap(comparison):
    view = views.comparison_bars(comparison)
    for bar in view.bars:
        row = comparison[bar.name]
        if row.error:
            assert bar.parts == () and bar.note == row.error
        elif row.timeline is None:
            assert [size for _, size, _ in bar.parts] == [row.metrics["size"]]
        else:
            assert sum(size for _, size, _ in bar.parts) == row.metrics["size"]


def test_all_rows_of_a_comparison_are_shown(comparison):
    html = ElementTree.fromstring(comparison._repr_html_())
    assert [row[0].text for row in html.iter("tr")][1:] == list(comparison)
    assert len(html.find(f"{SVG}svg").findall(f"{SVG}line")) >= len(comparison) - 1


# --- what Jupyter shows ---


def test_what_jupyter_shows_of_a_timeline_has_its_numbers_and_two_pictures(timeline):
    html = timeline._repr_html_()
    tree = ElementTree.fromstring(html)
    shown = {row[0].text: row[1].text for row in tree.iter("tr")}
    at = max(range(len(timeline)), key=timeline.allocated.__getitem__)
    assert shown["requested"].startswith(bsa.units.format_size(timeline.requested[at]))
    assert len(list(tree.iter(f"{SVG}svg"))) == 2
    assert "<style" not in html and "<script" not in html


def test_fragments_of_long_timelines_stay_small():
    trace = some_trace(3000)
    trace = bsa.Trace.from_events(list(trace)[:3000]).repeated(20)
    with bsa.Allocator(64 << 30, cpus=1) as heap:
        timeline = bsa.replay(trace, heap, samples=20_000)
    assert len(timeline._repr_html_()) < 300_000


def test_a_fragment_of_the_most_restless_timeline_stays_small():
    rng, rows = random.Random(0), array("q")
    for event in range(5000):
        numbers = [rng.randrange(1 << 30) for _ in NUMBERS]
        numbers[NUMBERS.index("event")] = event
        per_order = [rng.randrange(9) << rng.randrange(9) for _ in range(ORDERS)]
        indices = [rng.choice([-1000, 0, 250, 500, 900]) for _ in range(2 * ORDERS)]
        rows.extend([*numbers, *per_order, *indices])
    timeline = bsa.Timeline(rows.tobytes(), 5000, 0, 4096, 1 << 34)
    assert len(timeline._repr_html_()) < 300_000


@pytest.mark.parametrize("events", [0, 1, 2])
def test_short_timelines_can_be_shown(events):
    trace = bsa.Trace.from_events([(1, k, 100, 0, 0) for k in range(events)])
    with bsa.Allocator(1 << 20, cpus=1) as heap:
        timeline = bsa.replay(trace, heap, samples=10)
    ElementTree.fromstring(timeline._repr_html_())
    ElementTree.fromstring(str(views.histograms(trace).picture()))
