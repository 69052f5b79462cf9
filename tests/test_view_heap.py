"""Views of a heap: what is drawn is what is there, at its true place."""

import collections
import pickle
import random
import xml.etree.ElementTree as ElementTree

import pytest

import bsa
from bsa import views
from bsa.space import free_after_trim, spaces
from bsa.svg import FAINT_INK, Drawing
from bsa.views import colours, frame, strips
from bsa.views.strips import Span
from helpers import aligned

SVG = "{http://www.w3.org/2000/svg}"
PAGE = 4096


def parsed(view):
    return ElementTree.fromstring(str(view.picture()))


def titled(root):
    """The shapes that have a text for the pointer: (text, shape)."""
    return [(shape[0].text, shape) for shape in root.iter() if len(shape) == 1]


@pytest.fixture
def heap():
    """A page block, a slab, an empty slab, and what is free between."""
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        heap.malloc(5 * PAGE)
        heap.malloc_many(20, 100)
        heap.free_many(heap.malloc_many(2, 1000))
        yield heap


def churned(size, *, seed=1, cpus=2, page_size=PAGE):
    """A heap after many allocations and frees."""
    heap, rng, live = bsa.Allocator(size, cpus=cpus, page_size=page_size), random.Random(seed), []
    heap.add_region(size // 2)
    for _ in range(3000):
        with bsa.cpu(rng.randrange(cpus)):
            if rng.random() < 0.6 or not live:
                try:
                    live.append(heap.malloc(rng.choice([10, 60, 300, 1000, 5000, 20_000])))
                except bsa.OutOfMemoryError:
                    pass
            else:
                heap.free(live.pop(rng.randrange(len(live))))
    return heap


# --- extents ---


@pytest.mark.parametrize("page_size", [256, 4096])
def test_extents_tile_each_section_and_have_what_the_walk_has(page_size):
    with churned(3 << 20, page_size=page_size) as heap:
        walked = {address: size for address, size, _ in heap.walk()}
        for space, section in zip(spaces(heap), heap.sections, strict=True):
            assert space.base == section.region_start
            assert space.extents[0].end == space.heap == section.start - section.region_start
            ends = [extent.end for extent in space.extents]
            assert [extent.start for extent in space.extents] == [0, *ends[:-1]]
            assert ends[-1] == space.size == space.heap + section.size
            for extent in space.extents:
                if extent.kind == "slab":
                    objects = extent.slab.objects()
                    assert len(objects) == extent.live
                    for address in objects:
                        assert walked.pop(address) == extent.slab.size
                if extent.kind == "pages":
                    assert walked.pop(space.base + extent.start) == extent.size
        assert not walked


def test_free_extents_have_their_orders():
    with churned(3 << 20) as heap:
        for space, section in zip(spaces(heap), heap.sections):
            free = collections.Counter(e.order for e in space.extents if e.kind == "free")
            counts = section.free_blocks()
            assert [free[order] for order in range(len(counts))] == list(counts)


@pytest.mark.parametrize("seed", range(5))
def test_what_trim_frees_is_foreseen(seed):
    with churned(3 << 20, seed=seed) as heap:
        foreseen = [tuple(map(len, free_after_trim(space))) for space in spaces(heap)]
        heap.trim()
        assert foreseen == [section.free_blocks() for section in heap.sections]


# --- the heap map ---


def test_each_extent_is_a_rectangle_at_its_offset(heap):
    view = views.heap_map(heap)
    ((space,), (drawn,)) = spaces(heap), view.maps
    row_bytes, scale = drawn.row_bytes, frame.INNER / drawn.row_bytes
    shapes = titled(parsed(view))
    for extent in space.extents:
        row, start = divmod(extent.start, row_bytes)
        mine = [shape for text, shape in shapes if text.startswith(f"{extent.start:#x}: ")]
        rows = (extent.end - 1) // row_bytes - row + 1
        assert len(mine) == rows
        assert float(mine[0].get("x")) == pytest.approx(frame.LEFT + start * scale, abs=0.06)
        width = (min(extent.end, (row + 1) * row_bytes) - extent.start) * scale
        assert float(mine[0].get("width")) == pytest.approx(width, abs=0.6)
        tops = [float(shape.get("y")) for shape in mine]
        assert tops == [tops[0] + 13 * k for k in range(rows)]
    assert {shape.get("fill") for text, shape in shapes if "page block" in text} == {colours.BLUE}
    assert {shape.get("fill") for text, shape in shapes if "empty slab" in text} == {colours.PURPLE}


def test_larger_free_blocks_are_stronger(heap):
    shapes = [(t, s) for t, s in titled(parsed(views.heap_map(heap))) if "free block" in t]
    strength = {}
    for text, shape in shapes:
        order = int(text.split("order ")[1].split(",")[0])
        strength[order] = float(shape.get("fill-opacity"))
    assert len(strength) > 3
    assert [strength[order] for order in sorted(strength)] == sorted(strength.values())


def test_objects_are_drawn_one_by_one_if_asked_for(heap):
    plain = [text for text, _ in titled(parsed(views.heap_map(heap)))]
    fine = [text for text, _ in titled(parsed(views.heap_map(heap, objects=True)))]
    assert not any(": object" in text for text in plain)
    assert sum(": object, 112 B" in text for text in fine) == 20
    assert any("20 objects of 112 bytes live" in text for text in plain)


def test_what_rounding_loses_has_a_colour_of_its_own():
    trace = bsa.Trace.from_events([(1, 0, 3 * PAGE, 0, 0), (1, 1, 100, 0, 2)])
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        births = bsa.replay_births(trace, heap)
        root = parsed(views.heap_map(heap, objects=True, births=births))
    (lost,) = [s for t, s in titled(root) if t.startswith("lost by rounding, ") and "12,288" in t]
    (asked,) = [s for t, s in titled(root) if "page block: 12,288 bytes" in t and s is not lost]
    assert lost.get("fill") == colours.VERMILLION != asked.get("fill")
    assert float(asked.get("width")) == pytest.approx(3 * float(lost.get("width")), abs=2)
    assert any("100 bytes asked for, 112 granted; event 1, thread 2" in t for t, _ in titled(root))


def test_of_many_sections_some_are_drawn_and_the_others_counted():
    with bsa.Allocator(cpus=1, page_size=256) as heap:
        for _ in range(20):
            heap.add_region(bytearray(20_000))
        texts = [text.text for text in parsed(views.heap_map(heap)).iter(SVG + "text")]
    assert sum(text.startswith("Section ") for text in texts) == 8
    assert "12 more sections" in texts


# --- the buddy tree ---


def test_a_block_stands_in_the_row_of_its_order_over_its_pages(heap):
    (space,), rows = spaces(heap), views.buddy_tree(heap).rows()
    drawn = {
        (space.top_order - row, span.start)
        for row, spans in enumerate(rows[:-1])
        for span in spans
        if "split" not in span.text
    }
    expected = {
        ((e.size // PAGE).bit_length() - 1, (e.start - space.heap) // PAGE)
        for e in space.extents
        if e.kind != "metadata"
    }
    assert drawn == expected
    for row, spans in enumerate(rows[:-1]):
        assert {span.end - span.start for span in spans} <= {1 << space.top_order - row}


def test_above_each_block_stand_the_splits_it_came_from():
    with bsa.Allocator(aligned(4 << 20), cpus=1) as heap:
        page = heap.malloc(PAGE)
        view = views.buddy_tree(heap)
        (space,) = spaces(heap)
        number = page // PAGE - space.first_page
        splits = [
            space.top_order - row
            for row, spans in enumerate(view.rows())
            for span in spans
            if "split" in span.text and span.start <= number < span.end
        ]
        whole = {o for o in range(21) if heap.free_blocks()[o]}
        assert splits == sorted(splits, reverse=True)
        assert splits[-1] == 1
        assert set(range(1, splits[0] + 1)) == set(splits)
        assert set(range(splits[0])) <= whole, "each split has left a free half"


def test_a_free_block_with_its_buddy_in_use_cannot_merge():
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        pages = [heap.malloc(PAGE) for _ in range(heap.free_pages)]
        chosen = next(p for p in pages if p // PAGE % 2 == 0)
        heap.free(chosen)
        view = views.buddy_tree(heap)
        (text,) = [
            span.text for row in view.rows()[:-1] for span in row if "free block" in span.text
        ]
        offset = chosen - heap.sections[0].region_start
        assert text.startswith(f"{offset:#x}: free block of order 0")
        assert f"its buddy at {offset + PAGE:#x}" in text
        assert "1 free block of 4 KiB cannot merge" in view.picture().description


def test_a_block_of_five_pages_stands_in_two_rows():
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        block = heap.alloc_pages(5, exact=True)
        view = views.buddy_tree(heap)
        (space,) = spaces(heap)
        page = block.address // PAGE - space.first_page
        pieces = {
            (space.top_order - row, span.start)
            for row, spans in enumerate(view.rows())
            for span in spans
            if "page block" in span.text
        }
        assert pieces == {(2, page), (0, page + 4)}
        block.free()


def test_neighbours_that_are_no_buddies_are_one_run():
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        pages = {heap.malloc(PAGE) for _ in range(heap.free_pages)}
        odd = next(p for p in sorted(pages) if p // PAGE % 2 == 1 and p + PAGE in pages)
        heap.free(odd)
        heap.free(odd + PAGE)
        (run,) = views.buddy_tree(heap).rows()[-1]
        assert run.end - run.start == 2
        assert "8 KiB free in a row, 2 free blocks" in run.text
        assert heap.largest_free == PAGE


# --- slabs ---


def test_each_slab_is_a_bar_with_its_objects_at_their_places():
    with bsa.Allocator(1 << 20, cpus=1) as heap:
        addresses = heap.malloc_many(10, 100)
        heap.free_many(addresses[3:5])
        (slab,) = heap.slabs()
        root = parsed(views.slab_strips(heap))
    (text,) = [text for text, _ in titled(root)]
    assert f"8 of {slab.capacity} objects of 112 bytes live" in text
    (path,) = root.iter(SVG + "path")
    assert path.get("d") == "m0 0.5h3m2 0h5"
    assert any(f"{800 / slab.capacity:.1f} % used" in t.text for t in root.iter(SVG + "text"))


def test_objects_freed_by_other_slots_are_told_apart():
    with bsa.Allocator(4 << 20, cpus=2) as heap:
        with bsa.cpu(0):
            addresses = heap.malloc_many(3000, 100)
        with bsa.cpu(1):
            heap.free_many(addresses[:40])
        texts = [text for text, _ in titled(parsed(views.slab_strips(heap)))]
    assert sum("freed by other slots" in text for text in texts) == 1


# --- whatever the size ---


def all_views(heap):
    return [
        views.heap_map(heap),
        views.heap_map(heap, objects=True),
        views.buddy_tree(heap),
        views.slab_strips(heap),
        views.request_curve(heap),
        views.pins_map(heap, 3),
    ]


@pytest.fixture(scope="module")
def ragged():
    """Many pages and objects, every third of them free, in a heap of 64 GiB."""
    with bsa.Allocator(64 << 30, cpus=1) as heap:
        pages = heap.malloc_many(20_000, PAGE)
        heap.free_many(list(pages)[::3])
        objects = heap.malloc_many(50_000, 64)
        heap.free_many(list(objects)[::3])
        heap.malloc(1 << 30)
        yield heap


def test_views_stay_small_whatever_the_heap(ragged):
    for view in all_views(ragged):
        assert len(view._repr_html_()) < 300_000, type(view)


@pytest.mark.parametrize("objects", [30, 60, 400, 3000])
def test_a_map_of_many_sections_stays_small(objects):
    """Just few enough to be drawn exactly, and just too many."""
    trace = bsa.Trace.from_events(
        [(1, k, 40 + k % 7, 0, 0) for k in range(10 * objects)]
        + [(4, k, 0, 0, 0) for k in range(0, 10 * objects, 2)]
    )
    with bsa.Allocator(cpus=1) as heap:
        for _ in range(10):
            heap.add_region(bytearray(40_000 + 48 * objects))
        births = bsa.replay_births(trace, heap)
        view = views.heap_map(heap, objects=True, births=births)
        assert len(view._repr_html_()) < 300_000


@pytest.mark.parametrize("slabs", [30, 390, 410, 3000])
def test_strips_of_many_slabs_stay_small(slabs):
    with bsa.Allocator(256 << 20, cpus=1) as heap:
        for size in (16, 64, 256, 1024):
            capacity = heap.slab_of(heap.malloc(size)).capacity
            addresses = heap.malloc_many(slabs // 4 * capacity, size)
            heap.free_many(addresses[::2])
        assert len(heap.slabs()) >= slabs
        assert len(views.slab_strips(heap)._repr_html_()) < 300_000


@pytest.mark.parametrize("slabs", [1, 6, 8, 80])
def test_strips_of_all_classes_stay_small(slabs):
    rng = random.Random(slabs)
    with bsa.Allocator(1 << 30, cpus=2) as heap:
        with bsa.cpu(0):
            blocks = {}
            for size in heap.size_classes:
                capacity = heap.slab_of(heap.malloc(size)).capacity
                blocks[size] = heap.malloc_many(slabs * capacity, size)
        for addresses in blocks.values():
            with bsa.cpu(rng.randrange(2)):
                heap.free_many(rng.sample(list(addresses), len(addresses) // 2))
        view = views.slab_strips(heap)
        assert len(view.classes) == len(heap.size_classes)
        assert len(view._repr_html_()) < 300_000


def test_slabs_of_a_view_are_a_picture_of_then_and_can_be_pickled(heap):
    address = heap.malloc(100)
    view = views.slab_strips(heap)
    again = pickle.loads(pickle.dumps(view))
    heap.free(address)
    heap.trim()
    assert again == view and str(again.picture()) == str(view.picture())


def test_views_of_an_allocator_without_memory_are_empty():
    with bsa.Allocator() as heap:
        for view in (views.heap_map(heap), views.slab_strips(heap), views.request_curve(heap)):
            ElementTree.fromstring(str(view.picture()))
        assert views.request_curve(heap).largest == 0
        with pytest.raises(IndexError):
            views.buddy_tree(heap)
        with pytest.raises(bsa.InvalidParamError):
            bsa.pins(heap, 0)


@pytest.mark.parametrize(
    "function, kind",
    [
        *((name, "Allocator") for name in ("heap_map", "buddy_tree", "slab_strips")),
        *((name, "Allocator") for name in ("request_curve", "pins_map")),
        *((name, "Timeline") for name in ("memory_timeline", "order_map")),
        ("histograms", "Trace"),
        ("comparison_bars", "Comparison"),
    ],
)
def test_a_view_of_something_else_is_refused_by_name(heap, function, kind):
    wrong = bsa.Trace.from_events([]) if kind != "Trace" else heap
    order = [1] if function == "pins_map" else []
    with pytest.raises(TypeError) as refused:
        getattr(views, function)(wrong, *order)
    assert str(refused.value) == f"{function}() needs a bsa.{kind}, not {type(wrong).__name__}"


def test_a_legend_lists_only_what_is_there():
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        heap.malloc(PAGE)
        for view in (views.heap_map(heap, objects=True), views.buddy_tree(heap)):
            texts = [text.text for text in parsed(view).iter(SVG + "text")]
            assert "free" in texts and {"page blocks", "page block"} & set(texts)
            assert not {"objects", "unused in slabs", "slab", "empty slab", "empty slabs"} & set(
                texts
            )


def test_a_closed_allocator_has_no_views():
    heap = bsa.Allocator(1 << 20)
    heap.close()
    for view in (views.heap_map, views.buddy_tree, views.slab_strips, views.request_curve):
        with pytest.raises(bsa.ClosedError):
            view(heap)


def test_what_jupyter_shows_stays_small_whatever_the_heap(ragged):
    slab = max(ragged.slabs(), key=lambda slab: slab.capacity)
    for shown in (ragged, ragged.sections[0], slab, bsa.pins(ragged, 12)):
        assert len(shown._repr_html_()) < 300_000


def test_views_are_fragments_without_style_script_or_identifiers(heap):
    for view in all_views(heap):
        fragment = view._repr_html_()
        root = ElementTree.fromstring(fragment)
        names = {element.tag.removeprefix(SVG) for element in root.iter()}
        assert not names & {"style", "script"}
        assert "id" not in {name for element in root.iter() for name in element.keys()}
        assert root.get("role") == "img"
        assert root.find(SVG + "title").text and root.find(SVG + "desc").text


def test_a_view_of_an_untouched_heap_can_be_drawn():
    with bsa.Allocator(1 << 20) as heap:
        for view in all_views(heap):
            ElementTree.fromstring(str(view.picture()))


@pytest.mark.parametrize("name", ["map.svg", "map.SVG", "map"])
def test_a_saved_view_is_a_file_of_its_own(heap, tmp_path, name):
    view = views.heap_map(heap)
    view.save(tmp_path / name)
    assert (tmp_path / name).read_text(encoding="utf-8") == str(view.picture())


def test_a_view_is_saved_as_nothing_but_svg(heap, tmp_path):
    path = tmp_path / "map.png"
    with pytest.raises(bsa.InvalidParamError, match="map.png: what is written is .svg, not .png"):
        views.heap_map(heap).save(path)
    assert not path.exists()


def test_text_has_the_colour_of_its_surroundings(heap):
    for view in all_views(heap):
        fills = {text.get("fill") for text in parsed(view).iter(SVG + "text")}
        assert fills == {FAINT_INK.colour} == {"currentColor"}


def test_a_view_is_of_the_moment_it_was_made(heap):
    view = views.heap_map(heap)
    before = str(view.picture())
    heap.malloc(100_000)
    assert str(view.picture()) == before


# --- rows of spans ---


def test_cells_have_the_paint_of_most_of_what_is_used_paler_for_less():
    blue, red = colours.Paint("blue"), colours.Paint("red")
    spans = [Span(0, 10, blue), Span(10, 13, red), Span(13, 20, colours.FREE, is_free=True)]
    cells = strips.cells_of(spans, 30, 3)
    assert cells[0] == blue
    assert (cells[1].colour, cells[1].opacity) == ("red", 0.67)
    assert cells[2] is None


def test_equal_cells_in_a_row_are_one_stroke():
    cells = strips.cells_of([Span(k, k + 1, colours.PAGES) for k in range(10_000)], 10_000, 100)
    drawing = Drawing()
    place = strips.Rows(0, 0, 100, 10, 10_000)
    strips.draw(drawing, place, strips.Tiles(cells, 100, 100, ["all of it"]))
    path, zone = drawing.finished(1, 1, "", "").elements.splitlines()
    assert 'd="m0 0.5h100"' in path and "all of it" in zone
