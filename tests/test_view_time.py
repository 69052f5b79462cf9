"""Views of timelines, comparisons and traces."""

import collections
import dataclasses
import pickle
import random
import xml.etree.ElementTree as ElementTree
from array import array

import pytest

import bsa
from bsa import views
from bsa.timeline import NUMBERS, ORDERS
from bsa.views import frame, memory
from bsa.views.histograms import bars
from bsa.views.tightest import losses, tightest
from helpers import aligned

SVG = "{http://www.w3.org/2000/svg}"
PAGE = 4096


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
    requested, rounded, slack, others, free = stacked
    assert not any(others)
    for k, event in enumerate(events):
        sample = at[event]
        assert requested[k] == timeline.requested[sample]
        losses = timeline.class_rounding[sample] + timeline.page_rounding[sample]
        assert rounded[k] == losses
        assert slack[k] == timeline.slab_slack[sample]
        assert free[k] == timeline.free[sample]


def test_each_band_is_an_area_of_the_colour_in_the_legend(timeline):
    root = parsed(views.memory_timeline(timeline))
    areas = [polygon.get("fill") for polygon in root.iter(SVG + "polygon")]
    texts = [text.text for text in root.iter(SVG + "text")]
    there = {name: paint.colour for name, paint in memory._BANDS if name in texts}
    assert list(there) == ["requested", "lost by rounding", "unused in slabs", "free"]
    assert areas == list(there.values())


def test_what_lived_in_the_heap_before_has_a_band_of_its_own(trace):
    with bsa.Allocator(4 << 20, cpus=1) as heap:
        heap.malloc(1 << 18)
        heap.malloc(1000)
        before = heap.stats().current_bytes
        view = views.memory_timeline(bsa.replay(trace, heap, samples=20))
    _, (*_, others, _) = view.bands()
    assert set(others) == {before}
    assert "others' blocks" in [text.text for text in parsed(view).iter(SVG + "text")]


def test_a_pointer_over_the_bands_is_told_the_sample_under_it(timeline):
    said = titles(parsed(views.memory_timeline(timeline)))
    at = {event: sample for sample, event in enumerate(timeline.event)}
    for zone, text in enumerate(said):
        event = int(text.split()[1].strip(":").replace(",", ""))
        middle = (zone + 0.5) * timeline.events / len(said)
        assert abs(event - middle) <= timeline.events / len(timeline)
        requested = bsa.units.format_size(timeline.requested[at[event]])
        assert f": {requested} requested (" in text
    assert len(said) > 50


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


def test_a_timeline_is_saved_as_its_picture(timeline, tmp_path):
    timeline.save(tmp_path / "timeline.svg")
    written = (tmp_path / "timeline.svg").read_text(encoding="utf-8")
    assert written == str(views.memory_timeline(timeline).picture())
    with pytest.raises(bsa.InvalidParamError, match="timeline.pdf"):
        timeline.save(tmp_path / "timeline.pdf")


# --- orders over time ---


def test_the_rows_of_the_order_map_are_orders_and_its_shades_are_counts(timeline):
    free, unusable, extfrag = views.order_map(timeline).panels()
    assert (
        len(free.values) == len(unusable.values) == len(extfrag.values) == 10
    ), "4 MiB less metadata"
    counts = timeline.free_blocks
    for order, row in enumerate(free.values):
        assert list(row) == [sample[order] for sample in counts]
        assert all((free.share(count) == 0) == (count == 0) for count in row)
        assert list(unusable.values[order]) == list(timeline.unusable_index(order))
    shares = [free.share(count) for row in free.values for count in row]
    assert max(shares) == 1 and min(shares) >= 0


def test_only_a_request_that_would_fail_has_a_fragmentation_index(timeline):
    _, _, extfrag = views.order_map(timeline).panels()
    for order, row in enumerate(extfrag.values):
        assert list(row) == list(timeline.extfrag_index(order))
        assert all((extfrag.share(value) > 0) == (value >= 0) for value in row)


@pytest.mark.parametrize("size, fails", [(2 << 20, True), (64 << 20, False)])
def test_that_no_request_would_fail_is_said(trace, size, fails):
    with bsa.Allocator(size, cpus=1) as heap:
        view = views.order_map(bsa.replay(trace if fails else trace[:200], heap))
    texts = [text.text for text in parsed(view).iter(SVG + "text")]
    assert ("no request would fail" in texts) != fails
    assert "nothing is free" not in texts


def test_spans_of_the_order_map_cover_the_events(timeline):
    view = views.order_map(timeline)
    free, unusable, _ = view.panels()
    always = unusable._replace(values=tuple((1.0,) * len(timeline) for _ in unusable.values))
    for (span,) in view.rows(always):
        assert (span.start, span.end) == (0, timeline.events)
    for row in view.rows(unusable):
        ends = [span.end for span in row]
        assert all(end <= span.start for end, span in zip(ends, row[1:]))


def test_a_pointer_over_the_order_map_is_told_the_values():
    trace = bsa.Trace.from_events([(1, 0, 4096, 0, 0)])
    with bsa.Allocator(4 << 20, cpus=1) as heap:
        timeline = bsa.replay(trace, heap)
        counts = heap.free_blocks()
    said = titles(parsed(views.order_map(timeline)))
    for order in range(10):
        if counts[order]:
            block = bsa.units.format_size(4096 << order)
            text = f"order {order}: {block}, events 0 to 1: {bsa.units.counted(counts[order], 'free block')}"
            assert text in said


# --- histograms ---


def test_bars_are_the_requests_by_size(trace):
    root = parsed(views.histograms(trace))
    counted = collections.Counter()
    for size in (event.size for event in trace if event.op != bsa.TraceOp.FREE):
        counted[1 << (size - 1).bit_length() if size else 0] += 1
    for power, count in counted.items():
        text = f"up to {bsa.units.format_size(power)}: {bsa.units.counted(count, 'request')}"
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


def test_one_request_is_no_plural_and_no_heading_is_cut():
    trace = bsa.Trace.from_events([(1, 0, 100, 0, 0), (4, 0, 0, 0, 0)])
    root = parsed(views.histograms(trace))
    texts = [text.text for text in root.iter(SVG + "text")]
    assert "Sizes asked for: 1 request" in texts and "Lifetimes in events: 1 freed block" in texts
    assert "median 1 event; 0 blocks never freed" in texts
    assert not any("…" in text for text in texts)


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


def test_of_very_many_rows_some_are_shown_and_the_number_of_the_others(comparison):
    kinds = [comparison["4k"], comparison["tiny"], comparison["tlsf"]]
    rows = [dataclasses.replace(row, name=f"{row.name} {k}") for k in range(400) for row in kinds]
    many = bsa.Comparison(rows, comparison.events, comparison.trace_peak)
    html = many._repr_html_()
    assert len(html) < 300_000
    tree = ElementTree.fromstring(html)
    shown = [row[0].text for row in tree.iter("tr")][1:]
    assert shown[:-1] == list(many)[: len(shown) - 1]
    assert shown[-1] == f"and {1200 - len(shown) + 1:,} more"
    picture = tree.find(f"{SVG}svg")
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert shown[-1] in texts and picture.find(f"{SVG}desc").text.endswith(shown[-1])
    assert set(shown) < set(texts) and list(many)[len(shown) - 1] not in texts


def test_every_picture_has_a_title_and_a_description(trace, timeline, comparison):
    for view in (
        views.memory_timeline(timeline),
        views.order_map(timeline),
        views.histograms(trace),
        views.comparison_bars(comparison),
    ):
        root = parsed(view)
        assert root.get("role") == "img"
        assert root.find(SVG + "title").text and root.find(SVG + "desc").text


# --- what Jupyter shows ---


def test_what_jupyter_shows_of_a_timeline_has_its_numbers_and_two_pictures(timeline):
    timeline = pickle.loads(pickle.dumps(timeline))  # numbers alone
    html = timeline._repr_html_()
    tree = ElementTree.fromstring(html)
    shown = {row[0].text: [cell.text for cell in row[1:]] for row in tree.iter("tr")}
    at = max(range(len(timeline)), key=timeline.allocated.__getitem__)
    for name, column in [
        ("requested", timeline.requested),
        ("lost to size classes", timeline.class_rounding),
        ("lost to powers of two", timeline.page_rounding),
        ("unused in slabs", timeline.slab_slack),
        ("free", timeline.free),
    ]:
        for text, sample in zip(shown[name], (at, -1), strict=True):
            assert text.split(" (")[0] == bsa.units.format_size(column[sample])
    assert shown["after event"] == [f"{timeline.event[k]:,}" for k in (at, -1)]
    assert [svg[0].text for svg in tree.iter(f"{SVG}svg")] == [
        "Memory over time",
        "Free blocks and fragmentation by order",
    ]
    assert "<style" not in html and "<script" not in html


@pytest.mark.parametrize("page_size", [512, 4096])
def test_all_that_is_lost_when_most_is_held_has_a_name_and_a_place(trace, page_size):
    with bsa.Allocator(4 << 20, cpus=2, page_size=page_size) as heap:
        timeline = bsa.replay(trace, heap, samples=100)
    at = max(range(len(timeline)), key=timeline.allocated.__getitem__)
    found = tightest(timeline)
    assert found.map.has_births
    rounded = [loss for loss in found.losses if loss.what.startswith("blocks of ")]
    in_slabs = [loss for loss in found.losses if loss.what.startswith("unused in slabs of ")]
    assert len(rounded) + len(in_slabs) == len(found.losses)
    losses = timeline.class_rounding[at] + timeline.page_rounding[at]
    assert sum(loss.size for loss in rounded) == losses
    assert sum(loss.size for loss in in_slabs) == timeline.slab_slack[at]
    sizes = [loss.size for loss in found.losses]
    assert sizes == sorted(sizes, reverse=True)


def test_blocks_that_get_the_same_size_lose_together():
    sizes = [2049, 3000, *[4000] * 5, 4096, 4096, 5000]
    trace = bsa.Trace.from_events([(1, id, size, 0, 0) for id, size in enumerate(sizes)])
    with bsa.Allocator(1 << 20, cpus=1) as heap:
        births = bsa.replay_births(trace, heap)
        first, second = losses(heap, births)
    assert first == (
        2047 + 1096 + 5 * 96,
        "blocks of 2,049 to 4,000 bytes, most of 4,000, in 4 KiB",
        "7",
    )
    assert second == (3192, "blocks of 5,000 bytes in 8 KiB", "1")


def test_the_sizes_that_lose_most_are_told_without_a_click():
    events = [(1, id, 40 if id < 60 else 5000, 0, 0) for id in range(90)]
    trace = bsa.Trace.from_events(events + [(4, id, 0, 0, 0) for id in range(90)])
    with bsa.Allocator(1 << 20, cpus=1) as heap:
        tree = ElementTree.fromstring(bsa.replay(trace, heap)._repr_html_())
    shown = {row[0].text: [cell.text for cell in row[1:]] for row in tree.iter("tr")}
    assert shown["blocks of 5,000 bytes in 8 KiB"] == ["30", "93.5 KiB (98.3 %)"]
    assert shown["blocks of 40 bytes in 48 B"] == ["60", "480 B (0.5 %)"]
    assert [svg[0].text for svg in tree.iter(f"{SVG}svg")][0] == "Heap map"


def test_a_moment_is_shown_only_where_another_heap_would_do_the_same(trace):
    def seen(heap, **options):
        with heap:
            return tightest(bsa.replay(trace, heap, samples=9, **options))

    def used():
        heap = bsa.Allocator(4 << 20)
        heap.malloc(1)
        return heap

    def of_two_sections():
        heap = bsa.Allocator(4 << 20)
        heap.add_region(1 << 20)
        return heap

    assert seen(bsa.Allocator(4 << 20))
    assert seen(bsa.Allocator(aligned(4 << 20)))
    assert not seen(bsa.Allocator(aligned(4 << 20, 4 << 20, PAGE)))
    assert not seen(used())
    assert not seen(of_two_sections())
    assert not seen(bsa.Allocator(4 << 20, limit=4 << 20))
    assert not seen(bsa.Allocator(1 << 18), bad="skip")


def test_fragments_of_long_timelines_stay_small():
    trace = some_trace(3000)
    trace = bsa.Trace.from_events(list(trace)[:3000]).repeated(20)
    with bsa.Allocator(64 << 30, cpus=1) as heap:
        timeline = bsa.replay(trace, heap, samples=20_000)
    assert timeline.origin and len(timeline._repr_html_()) < 300_000


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
