"""What Jupyter shows of an allocator, its sections and slabs."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

import bsa
from bsa.html import allocator_html

SVG = "{http://www.w3.org/2000/svg}"
PAGE = 4096


def parsed(html):
    """The fragment as a tree: it is XML as well."""
    return ElementTree.fromstring(html)


def table(tree):
    return {row[0].text: row[1].text for row in tree.iter("tr")}


def cells(picture):
    """(row, column) to the colour of each cell that is painted."""
    found = {}
    for path in picture.iter(f"{SVG}path"):
        row, column = -0.5, 0
        for right, down, length in re.findall(r"m(-?\d+) (-?[\d.]+)h(\d+)", path.get("d")):
            row, column = row + float(down), column + int(right)
            for _ in range(int(length)):
                assert (row, column) not in found
                found[row, column] = path.get("stroke")
                column += 1
    return found


@pytest.fixture
def heap():
    with bsa.Allocator(1 << 20, cpus=1) as heap:
        yield heap
        heap.check()


def test_jupyter_gets_the_fragment(heap):
    assert heap._repr_html_() == allocator_html(heap)


def test_the_table_gives_the_main_numbers_with_units(heap):
    block = heap.alloc_pages(64)
    shown = table(parsed(allocator_html(heap)))
    assert shown["held"].startswith("256 KiB (")
    assert shown["requested"] == "256 KiB"
    assert shown["live"] == "1 allocation of 1 ever"
    assert f"{heap.total_pages} pages of 4 KiB in 1 section" in shown["managed"]
    block.free()
    assert table(parsed(allocator_html(heap)))["requested"] == "0 B"


def test_parked_bytes_and_a_limit_are_shown_where_there_are_any(heap):
    assert not {"parked", "limit"} & table(parsed(allocator_html(heap))).keys()
    block = heap.alloc(PAGE)
    memoryview(block).release()
    block.free()
    heap.limit = 1 << 19
    shown = table(parsed(allocator_html(heap)))
    assert (shown["parked"], shown["limit"]) == ("4 KiB", "512 KiB")


def test_the_map_has_the_colour_of_each_page(heap):
    block = heap.alloc_pages(8)
    first = heap.slab_of(heap.malloc(1000))
    heap.malloc_many(first.capacity, 1000)
    heap.free_many(heap.slab_of(first.base).objects())
    (picture,) = parsed(allocator_html(heap)).iter(f"{SVG}svg")
    colours = {0: "#888888", 1: "#0072b2", 2: "#e69f00", 3: "#cc79a7"}
    states = heap.sections[0].page_states()
    expected = {(i // 96, i % 96): colours[state] for i, state in enumerate(states)}
    assert {(int(row), column): c for (row, column), c in cells(picture).items()} == expected
    assert set(states) == {0, 1, 2, 3}
    block.free()


def test_the_cells_of_the_map_have_gaps_between_them(heap):
    heap.malloc(PAGE)
    (picture,) = parsed(allocator_html(heap)).iter(f"{SVG}svg")
    rows = -(-heap.total_pages // 96)
    assert float(picture.get("height")) == 7 * rows - 1
    assert float(picture.get("width")) == 7 * 96 - 1
    for path in picture.iter(f"{SVG}path"):
        assert re.search(r"scale\((.*)\)", path.get("transform"))[1] == "7 7"
        painted, gap = map(float, path.get("stroke-dasharray").split())
        assert 7 * painted == 7 * float(path.get("stroke-width")) == pytest.approx(6, abs=0.01)
        assert painted + gap == pytest.approx(1)


def test_the_map_has_a_title_and_a_description(heap):
    heap.malloc(PAGE)
    (picture,) = parsed(allocator_html(heap)).iter(f"{SVG}svg")
    assert picture.find(f"{SVG}title").text == "Section 0"
    assert "page blocks" in picture.find(f"{SVG}desc").text


def test_each_section_has_a_map(heap):
    heap.add_region(1 << 18)
    tree = parsed(allocator_html(heap))
    titles = [picture.find(f"{SVG}title").text for picture in tree.iter(f"{SVG}svg")]
    assert titles == ["Section 0", "Section 1"]


def test_a_pointer_over_the_map_is_told_what_lies_there(heap):
    block = heap.alloc_pages(64)
    (section,) = heap.sections
    (picture,) = parsed(allocator_html(heap)).iter(f"{SVG}svg")
    texts = [shape[0].text for shape in picture.iter() if len(shape) == 1]
    states = section.page_states()
    assert len(texts) == -(-len(states) // 48)
    for index, text in enumerate(texts):
        pages = states[48 * index : 48 * (index + 1)]
        start = section.start - section.region_start + 48 * index * PAGE
        assert text.startswith(f"{start:#x} to {start + len(pages) * PAGE:#x}: ")
        for state, name in ((0, "free"), (1, "page blocks")):
            share = f"{100 * pages.count(state) / len(pages):.1f} % {name}"
            assert (share in text) == (state in pages)
    block.free()


def test_a_fragment_stays_small_with_many_sections():
    with bsa.Allocator(page_size=256, cpus=1) as heap:
        for _ in range(100):
            heap.add_region(bytearray(20000))
        html = allocator_html(heap)
    assert len(html) < 50_000
    assert "88 more sections" in html


def test_a_fragment_stays_small_with_the_most_ragged_heap():
    with bsa.Allocator(40 << 20, cpus=1) as heap:
        blocks = [heap.malloc(PAGE) for _ in range(heap.total_pages)]
        heap.free_many(blocks[::3])
        for address in blocks[::3]:
            if (address // PAGE) % 2:
                heap.malloc(32)
        assert len(allocator_html(heap)) < 50_000


def test_a_fragment_stays_small_with_a_large_heap():
    with bsa.Allocator(4 << 30, cpus=1) as heap:
        heap.malloc(PAGE)
        html = allocator_html(heap)
    assert len(html) < 50_000
    assert "a cell is 512 pages" in html


def test_cells_partly_in_use_are_paler():
    with bsa.Allocator(64 << 20, cpus=1) as heap:
        heap.malloc(PAGE)
        (picture,) = parsed(allocator_html(heap)).iter(f"{SVG}svg")
    assert [p.get("stroke-opacity") for p in picture.iter(f"{SVG}path")] == ["0.5", "0.3"]


def test_a_closed_allocator_says_so():
    heap = bsa.Allocator(1 << 20)
    heap.close()
    assert parsed(heap._repr_html_())[0].text == "bsa.Allocator, closed"


def test_an_allocator_without_memory_says_so():
    tree = parsed(bsa.Allocator()._repr_html_())
    assert "without memory" in tree[0].text
    assert list(tree.iter("table")) == []


def test_two_fragments_share_no_identifiers(heap):
    assert " id=" not in allocator_html(heap)
    assert "<style" not in allocator_html(heap)


def test_looking_changes_nothing(heap):
    heap.malloc(100)
    before = heap.stats(), list(heap.walk()), heap.free_blocks()
    heap._repr_html_()
    assert (heap.stats(), list(heap.walk()), heap.free_blocks()) == before


# --- sections, slabs, pins ---


def test_jupyter_gets_a_fragment_of_a_section(heap):
    heap.malloc(3 * PAGE)
    section = heap.sections[0]
    tree = parsed(section._repr_html_())
    shown = table(tree)
    assert shown["pages"] == f"{section.total_pages} of 4 KiB"
    assert shown["free"].startswith(f"{section.free_pages} (")
    counts = section.free_blocks()
    for order, count in enumerate(counts):
        size = bsa.units.format_size(PAGE << order)
        assert (f"{count} × {size}" in shown["free blocks"].split(", ")) == (count > 0)
    (picture,) = tree.iter(f"{SVG}svg")
    assert len(cells(picture)) == section.total_pages


def test_a_removed_section_says_so(heap):
    section = heap.add_region(1 << 18)
    heap.remove_region(section)
    assert parsed(section._repr_html_())[0].text == "bsa.Section, removed"


def test_jupyter_gets_a_fragment_of_a_slab_with_its_objects(heap):
    addresses = heap.malloc_many(20, 100)
    heap.free_many(addresses[5:8])
    slab = heap.slab_of(addresses[0])
    tree = parsed(slab._repr_html_())
    shown = table(tree)
    assert shown["objects"] == f"{slab.capacity} of {slab.size} bytes"
    assert shown["live"].startswith("17 (")
    assert shown["owner"] == "slot 0, where it is current"
    (picture,) = tree.iter(f"{SVG}svg")
    painted = cells(picture)
    assert len(painted) == slab.capacity
    live = [
        index for index in range(slab.capacity) if painted[index // 96, index % 96] == "#e69f00"
    ]
    assert live == [*range(5), *range(8, 20)]


def test_objects_freed_by_other_slots_are_counted():
    with bsa.Allocator(1 << 20, cpus=2) as heap:
        with bsa.cpu(0):
            addresses = heap.malloc_many(10, 100)
        with bsa.cpu(1):
            heap.free_many(addresses[:4])
        shown = table(parsed(heap.slab_of(addresses[5])._repr_html_()))
    assert shown["freed by other slots"].startswith("4,")
    assert shown["live"].startswith("6 (")


def test_pins_are_listed_and_of_many_some():
    with bsa.Allocator(1 << 20, cpus=1) as heap:
        while heap.free_pages:
            heap.malloc(PAGE)
        few, many = bsa.pins(heap, 2), bsa.pins(heap, 6)
        lines = [div.text for div in parsed(few._repr_html_())]
        assert lines[1:] == [f"{pin.address:#x}: pages, 4 KiB" for pin in few]
        assert parsed(many._repr_html_())[-1].text == "and 44 more"


def test_a_replay_shows_how_it_went_without_being_asked_to(heap):
    churn = [(bsa.TraceOp.ALLOC, 0, 5000, 0, 0), (bsa.TraceOp.FREE, 0, 0, 0, 0)] * 20
    timeline = bsa.replay(bsa.Trace.from_events(churn), heap)
    assert len(timeline) == 40 and max(timeline.requested) == 5000
    assert "5,000 B" in timeline._repr_html_() or "4.88 KiB" in timeline._repr_html_()


def test_the_repr_of_a_view_is_one_short_line(heap):
    blocks = [heap.malloc(16 * k) for k in range(1, 60)]
    shown = repr(bsa.views.slab_strips(heap))
    assert shown.startswith("<bsa.views.SlabStrips: 16 bytes: 1 slab, ")
    assert len(shown) < 160 and "\n" not in shown
    for address in blocks:
        heap.free(address)


@pytest.mark.parametrize("kind", ["section", "slab", "pins"])
def test_no_fragment_has_identifiers_styles_or_scripts(heap, kind):
    heap.malloc(100)
    shown = {"section": heap.sections[0], "slab": heap.slabs()[0], "pins": bsa.pins(heap, 1)}[kind]
    html = shown._repr_html_()
    assert not re.search(r"\sid=|<style|<script|https?://(?!www\.w3\.org/2000/svg)", html)
