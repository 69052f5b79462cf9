"""Heaps of too many pieces to be drawn one by one: what cells and zones say is what is there."""

import collections
import random
import re
import xml.etree.ElementTree as ElementTree

import pytest

import bsa
from bsa import _core, views
from bsa.mosaic import mosaic
from bsa.space import spaces
from bsa.views import colours, frame, pieces, strips
from bsa.views.strips import Tiles
from helpers import aligned

SVG = "{http://www.w3.org/2000/svg}"
PAGE = 4096


def ragged(size, *, seed=1, cpus=2, page_size=PAGE):
    """A heap of two sections after many allocations and frees, and what its trace made."""
    rng, live, events = random.Random(seed), [], []
    for id in range(4000):
        if rng.random() < 0.65 or not live:
            live.append(id)
            events.append((1, id, rng.choice([10, 60, 300, 1000, 5000, 20_000]), 0, id % cpus))
        else:
            events.append((4, live.pop(rng.randrange(len(live))), 0, 0, id % cpus))
    heap = bsa.Allocator(size, cpus=cpus, page_size=page_size)
    heap.add_region(size)
    return heap, bsa.replay_births(bsa.Trace.from_events(events), heap)


def in_cells(start, end, cell, count):
    """(cell, bytes in it) of what lies from `start` to `end`."""
    for number in range(max(start // cell, 0), min(-(-end // cell), count)):
        size = min(end, (number + 1) * cell) - max(start, number * cell)
        if size > 0:
            yield number, size


def expected(heap, space, start, cell, count):
    """{kind: {cell: (bytes, pieces)}}, piece by piece."""
    found = collections.defaultdict(dict)

    def add(kind, first, end):
        for number, size in in_cells(first - start, end - start, cell, count):
            before = found[kind].get(number, (0, 0))
            found[kind][number] = before[0] + size, before[1] + 1

    for extent in space.extents:
        if extent.kind == "slab":
            add("idle" if extent.is_idle else "slab", extent.start, extent.end)
            for address in extent.slab.objects():
                add("object", address - space.base, address - space.base + extent.slab.size)
        elif extent.kind == "free":
            buddy = space.page_of(extent) ^ 1 << extent.order
            is_in_heap = space.first_page <= buddy < space.end_page
            is_whole = buddy + (1 << extent.order) <= space.end_page
            add("stuck" if is_in_heap and is_whole else "free", extent.start, extent.end)
        elif extent.kind == "pages":
            add("pages", extent.start, extent.end)
    return found


@pytest.mark.parametrize("page_size", [256, 4096])
@pytest.mark.parametrize("cell", [100, 4096, 1 << 16, 1 << 30])
def test_a_mosaic_has_the_sums_of_the_pieces_in_each_cell(page_size, cell):
    heap, _ = ragged(8 << 20, page_size=page_size)
    with heap:
        for section, space in zip(heap.sections, spaces(heap)):
            for start in (0, 70_001):
                count = min(-(-space.size // cell), 3000)
                found = mosaic(heap, section, start, cell, count)
                told = collections.defaultdict(dict)
                for number in range(count):
                    for kind, sums in found.sums(number).items():
                        told[kind][number] = sums
                assert told == expected(heap, space, start, cell, count)


def test_the_orders_of_a_mosaic_are_those_of_the_blocks():
    with bsa.Allocator(1 << 20, cpus=1) as heap:
        block = heap.alloc_pages(5, exact=True)
        heap.malloc(100)
        (section,) = heap.sections
        found = mosaic(heap, section, 0, 1 << 20, 1)
        counts = collections.Counter()
        for kind, order, sizes, numbers in found.columns:
            assert kind == "object" or sizes[0] == numbers[0] * PAGE << order
            counts[kind in ("free", "stuck"), kind, order] += numbers[0]
        assert counts[False, "pages", 2] == counts[False, "pages", 0] == 1, "5 pages: 4 and 1"
        for order, free in enumerate(heap.free_blocks()):
            assert counts[True, "free", order] + counts[True, "stuck", order] == free
        block.free()


def test_cells_that_cannot_be_are_refused():
    with bsa.Allocator(1 << 20) as heap:
        for arguments in ((1, 0, 1, 1), (0, 0, 0, 1), (0, 1, 2**63, 2), (0, 2**64 - 1, 1, 1)):
            with pytest.raises(bsa.InvalidParamError):
                _core._cells(heap, *arguments)
        with pytest.raises(bsa.InvalidParamError):
            _core._cells(heap, 0, 0, -1, 1)
        with pytest.raises(TypeError):
            _core._cells(None, 0, 0, 1, 1)
        assert _core._cells(heap, 0, 0, 1, 0).keys() <= {("free", 0)}
    with pytest.raises(bsa.ClosedError):
        _core._cells(heap, 0, 0, 1, 1)


@pytest.mark.parametrize("objects", [False, True])
@pytest.mark.parametrize("with_births", [False, True])
def test_cells_have_the_paint_that_their_spans_would_give_them(objects, with_births):
    heap, births = ragged(8 << 20, page_size=256)
    births = births if with_births else {}
    with heap:
        drawn = views.heap_map(heap, objects=objects, births=births).maps
        for section_map, space in zip(drawn, spaces(heap), strict=True):
            tiles = section_map.content
            if not isinstance(tiles, Tiles):
                assert space.section == 1, "the first one has many pieces"
                continue
            spans = pieces.spans(space, objects, births)
            cells = strips.cells_of(spans, len(tiles.cells) * tiles.unit, len(tiles.cells))
            assert tiles.cells == cells


def zone_texts(view):
    root = ElementTree.fromstring(str(view.picture()))
    return [shape[0].text for shape in root.iter() if len(shape) == 1]


def test_zones_tell_what_they_merge():
    heap, births = ragged(24 << 20)  # all of it in the first section
    with heap:
        texts = zone_texts(views.heap_map(heap, births=births))
        assert len(texts) > 200
        objects, lost = 0, False
        for text in texts:
            if " to " not in text:
                continue  # of the second section, which has few pieces
            place, _, words = text.partition(": ")
            start, end = (int(offset, 16) for offset in place.split(" to "))
            assert start < end
            share = re.search(r"([\d.]+) % free", words)
            assert share is None or 0 <= float(share[1]) <= 100
            assert share or words == "metadata"
            lost = lost or "lost by rounding" in words
        assert lost
        whole = sum(
            int(n.replace(",", "")) for t in texts for n in re.findall(r"([\d,]+) object", t)
        )
        objects = sum(size < PAGE for _, size, _ in heap.walk())
        assert objects <= whole <= objects + len(texts), "one at each border counts twice"


def test_every_cell_of_a_map_lies_in_a_zone():
    with bsa.Allocator(aligned(8 << 20), cpus=1) as heap:
        heap.free_many([heap.malloc(PAGE) for _ in range(heap.free_pages)][::2])
        view = views.heap_map(heap)
        (drawn,) = view.maps
        root = ElementTree.fromstring(str(view.picture()))
    zones = [shape for shape in root.iter(SVG + "rect") if shape.get("fill-opacity") == "0"]
    area = sum(float(zone.get("width")) * float(zone.get("height")) for zone in zones)
    assert drawn.size % drawn.row_bytes == 0
    assert area == pytest.approx(drawn.size // drawn.row_bytes * 13 * frame.INNER)
    assert all(zone[0].text for zone in zones)


def test_where_no_block_of_an_order_fits_its_row_is_empty():
    with bsa.Allocator(7 << 20, cpus=1) as heap:
        while heap.free_pages:
            heap.malloc(PAGE)
        view = views.buddy_tree(heap)
    assert isinstance(view.content, Tiles)
    assert view.rows()[0] == []  # 4 MiB: their multiples are the region's first byte and its middle
    assert view.rows()[1] != []


def test_a_tree_of_many_blocks_has_each_block_in_the_row_of_its_order():
    heap, _ = ragged(8 << 20)
    with heap:
        view, (space, _) = views.buddy_tree(heap), spaces(heap)
        assert isinstance(view.content, Tiles)
        columns, pages = view.content.columns, view.content.unit
        rows = [
            view.content.cells[start : start + columns]
            for start in range(0, len(view.content.cells), columns)
        ]
        held = collections.defaultdict(set)
        for extent in space.extents:
            if extent.kind != "metadata":
                order = (extent.size // PAGE).bit_length() - 1
                first = (extent.start - space.heap) // PAGE
                held[order] |= {page // pages for page in range(first, first + (1 << order))}
        for row, cells in enumerate(rows[:-1]):
            painted = {
                c for c, paint in enumerate(cells) if paint and paint.colour != "currentColor"
            }
            assert painted == held[view.heap.top_order - row]
        stuck = [extent for extent in space.extents if extent.kind == "free"]
        assert 0 < view.stuck <= len(stuck)
        texts = zone_texts(view)
    assert any("free and cannot merge" in text for text in texts)
    assert any(re.search(r"order 1: 8 KiB: \d+ page block", text) for text in texts)


def test_a_block_of_the_largest_order_waits_for_no_buddy():
    with bsa.Allocator(20 << 30, cpus=1) as heap:
        assert heap.free_blocks()[20] >= 3
        view = views.buddy_tree(heap)
        texts = [span.text for span in view.rows()[0] if "free block" in span.text]
        assert len(texts) == heap.free_blocks()[20]
        assert all(text.endswith("4 GiB: none is larger") for text in texts)
        assert not any(span.paint.colour == colours.VERMILLION for span in view.rows()[0])


def test_pins_in_a_window_of_many_pieces_are_drawn_in_cells():
    with bsa.Allocator(16 << 20, cpus=1) as heap:
        while heap.free_pages:
            heap.malloc(PAGE)
        view = views.pins_map(heap, 10)
        assert isinstance(view.content, Tiles)
        assert view.spans[-1].end == 1024 * PAGE
        assert "page blocks; 0.0 % free" in zone_texts(view)[0]
