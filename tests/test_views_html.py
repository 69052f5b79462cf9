"""What Jupyter shows of an allocator."""

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
    colours = {0: "#8888884d", 1: "#0072b2", 2: "#e69f00", 3: "#cc79a7"}
    states = heap.sections[0].page_states()
    expected = {(i // 96, i % 96): colours[state] for i, state in enumerate(states)}
    assert {(int(row), column): c for (row, column), c in cells(picture).items()} == expected
    assert set(states) == {0, 1, 2, 3}
    block.free()


def test_the_map_has_a_title_and_a_description(heap):
    heap.malloc(PAGE)
    (picture,) = parsed(allocator_html(heap)).iter(f"{SVG}svg")
    assert picture.find(f"{SVG}title").text == "Section 0"
    assert "page blocks" in picture.find(f"{SVG}desc").text


def test_each_section_has_a_map(heap):
    heap.add_region(1 << 18)
    tree = parsed(allocator_html(heap))
    assert [title.text for title in tree.iter(f"{SVG}title")] == ["Section 0", "Section 1"]


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
    assert [p.get("opacity") for p in picture.iter(f"{SVG}path")] == ["0.35", None]


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
