"""Pictures: well-formed SVG of bounded size, whose marks stand for what they should."""

import pathlib
import random
import re
import xml.etree.ElementTree as ElementTree
from array import array

import pytest

from bsa import plot
from bsa.svg import text_width
from bsa.timeline import NUMBERS, ORDERS, Timeline

FREE, BLOCK, SLAB, EMPTY = range(4)
SVG = "{http://www.w3.org/2000/svg}"
IMAGES = sorted(pathlib.Path(__file__).parent.parent.glob("docs/images/*.svg"))


def timeline_of(rows, *, events=1000, page_size=4096, managed=1 << 20):
    """`rows` are (event, requested, granted, allocated); blocks and indices are made up."""
    table = array("q")
    for row in rows:
        others = [0] * (len(NUMBERS) - len(row))
        per_order = [*[1] * ORDERS, *range(0, 40 * ORDERS, 40), *[-1000] * ORDERS]
        table.extend([*row, *others, *per_order])
    return Timeline(table.tobytes(), events, 0, page_size, managed)


@pytest.fixture
def timeline():
    return timeline_of([(k * 100, k * 9000, k * 9500, k * 10000) for k in range(1, 11)])


def picture_of(timeline, maps=(), **options):
    options = {"title": "a title", "subtitle": "a subtitle", "facts": []} | options
    return plot.picture(maps=maps, timeline=timeline, **options)


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(SVG + "text")]


def cells(svg):
    """The maps of a picture: per map {(row, column): (colour, opacity)}, read back from the strokes."""
    maps = {}
    for path in ElementTree.fromstring(svg).iter(SVG + "path"):
        place = path.get("transform")
        x, y = 0, -0.5
        for across, down, length in re.findall(r"m(-?\d+) (-?[\d.]+)h(\d+)", path.get("d")):
            x, y = x + int(across), y + float(down)
            for column in range(x, x + int(length)):
                cell = maps.setdefault(place, {})
                assert (int(y), column) not in cell, "no cell is painted twice"
                cell[int(y), column] = path.get("stroke"), float(path.get("stroke-opacity", 1))
            x += int(length)
    return list(maps.values())


def colours_of(states):
    """The colours and opacities of the cells of one map, in order of addresses."""
    (painted,) = cells(plot.heap_maps([plot.HeapMap("", bytes(states))], 4096))
    return [painted[place] for place in sorted(painted)]


def test_a_picture_is_an_svg_with_title_description_and_a_ground_for_light_and_dark(timeline):
    root = ElementTree.fromstring(picture_of(timeline, facts=[("peak", "1 MiB", "a note")]))
    assert root.tag == SVG + "svg"
    assert root.find(SVG + "title").text == "a title"
    assert "peak: 1 MiB (a note)" in root.find(SVG + "desc").text
    assert root.get("role") == "img"
    assert root.find(SVG + "rect").get("class") == "ground"
    assert "prefers-color-scheme:dark" in root.find(SVG + "style").text


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.stem)
def test_the_pictures_of_the_documentation_have_a_title_and_a_description(image):
    root = ElementTree.parse(image).getroot()
    assert root.get("role") == "img"
    assert root.find(SVG + "title").text and root.find(SVG + "desc").text


@pytest.mark.parametrize(
    "image", [image for image in IMAGES if image.stem in ("demo", "replay")], ids=lambda i: i.stem
)
def test_the_facts_of_a_replay_are_not_cut(image):
    picture = image.read_text(encoding="utf-8")
    assert " KiB metadata<" in picture and "…" not in picture


def test_names_that_xml_does_not_allow_are_escaped(timeline):
    title = "<&\"'\x00\x1b]]>\udc80"
    root = ElementTree.fromstring(picture_of(timeline, title=title).encode())
    assert root.find(SVG + "title").text.startswith("<&\"'")


def test_every_page_of_a_small_heap_is_a_cell_of_its_own():
    states = [BLOCK, SLAB, SLAB, EMPTY, FREE, FREE, BLOCK] * 13
    colours = colours_of(states)
    assert len(colours) == len(states)
    of_state = dict(zip(states, colours))
    assert colours == [of_state[state] for state in states]
    assert len(set(of_state.values())) == 4


@pytest.mark.parametrize("pages", [0, 1, 8, 9, 127, 128, 129, 12287, 12288, 12289, 100_000])
def test_the_cells_of_a_map_are_as_many_as_the_heap_needs(pages):
    svg = plot.heap_maps([plot.HeapMap("", bytes(pages))], 4096)
    painted = sum(map(len, cells(svg)))
    per_cell = int((re.search(r"a cell is (\d+) pages", svg) or [0, 1])[1])
    assert painted == -(-pages // per_cell) <= 96 * 128


def test_a_cell_of_many_pages_has_the_colour_of_their_use_paler_the_more_are_free():
    per_cell = 4
    cases = [[SLAB] * 4, [SLAB] * 3 + [FREE], [SLAB, FREE, FREE, FREE], [FREE] * 4, [BLOCK] * 4]
    states = [state for case in cases for state in case] + [FREE] * (per_cell * 96 * 128 - 20)
    full, mostly, little, none, block = colours_of(states)[:5]

    assert full[0] == mostly[0] == little[0] != none[0]
    assert 1 == full[1] > mostly[1] > little[1] > none[1]
    assert block[0] not in (full[0], none[0])


def test_a_single_used_page_in_a_free_region_can_be_seen():
    states = bytearray(1 << 20)
    states[777_777] = BLOCK
    assert len(set(colours_of(states))) == 2


@pytest.mark.parametrize("pages", [5000, 12288, 4_000_000])
def test_pictures_stay_below_300_kb_whatever_the_heap(pages):
    rng = random.Random(pages)
    noise = [plot.HeapMap("noise", rng.randbytes(pages).translate(bytes([0, 1, 2, 3] * 64)))] * 2
    rows = [(k, rng.randrange(10**9), rng.randrange(10**9), 10**9) for k in range(20_000)]
    assert len(picture_of(timeline_of(rows, events=20_000), noise)) < 300_000


def test_thinned_lines_keep_the_lowest_and_the_highest_sample():
    rows = [(k, 500, 600, 99_000) for k in range(50_000)]
    rows[33_333] = (33_333, 500, 600, 999_000)
    rows[44_444] = (44_444, 500, 600, 3)
    svg = plot.timeline_chart(timeline_of(rows, events=50_000))
    held = ElementTree.fromstring(svg).find(SVG + "polyline").get("points")
    heights = [float(point.split(",")[1]) for point in held.split()]
    assert len(heights) < 2000
    highest, usual, lowest = sorted(set(heights))
    assert heights.count(highest) == heights.count(lowest) == 1
    assert usual > highest + 100


def test_the_peak_is_marked(timeline):
    assert "peak 90 KiB" not in texts(picture_of(timeline))
    assert "peak 90 KiB" in texts(picture_of(timeline, peak=(999, 90 << 10)))


def test_the_size_of_the_heap_is_drawn_where_it_is_near():
    rows = [(1000, 500_000, 600_000, 700_000)]
    near, far = timeline_of(rows, managed=800_000), timeline_of(rows, managed=80_000_000)
    assert any("pages of the heap" in text for text in texts(picture_of(near)))
    assert not any("pages of the heap" in text for text in texts(picture_of(far)))


def span(text):
    """How far a text reaches, left and right: about, as the picture itself reckons."""
    x, width = float(text.get("x")), text_width(text.text, float(text.get("font-size")))
    return (x - width, x) if text.get("text-anchor") == "end" else (x, x + width)


@pytest.mark.parametrize("event", [0, 30, 400, 500, 501, 790, 900, 990, 1000])
def test_the_labels_of_the_timeline_keep_clear_of_the_peak_and_of_the_lines(event):
    rows = [(k * 100, 900_000, 950_000, 1_000_000) for k in range(11)]
    svg = plot.timeline_chart(timeline_of(rows, managed=1_100_000), (event, 900_000))
    root = ElementTree.fromstring(svg)
    (peak,) = (line for line in root.iter(SVG + "line") if line.get("stroke-dasharray") == "2 3")
    (name,) = (t for t in root.iter(SVG + "text") if t.text.startswith("peak "))
    (heap,) = (t for t in root.iter(SVG + "text") if t.text.startswith("pages of the heap"))
    for left, right in map(span, (name, heap)):
        assert not left <= float(peak.get("x1")) <= right
        assert 0 <= left and right <= float(root.get("width"))
    assert span(name)[1] < span(heap)[0] or span(heap)[1] < span(name)[0]
    held = root.find(SVG + "polyline").get("points")
    assert float(name.get("y")) < min(float(point.split(",")[1]) for point in held.split())


def test_a_heap_of_a_few_pages_has_an_unusable_index_too():
    timeline = timeline_of([(1, 0, 0, 0)], managed=4096)
    assert plot.telling_blocks(timeline) == [(0, 4096)]


def test_no_block_of_the_unusable_index_is_larger_than_any():
    timeline = timeline_of([(1, 0, 0, 0)], managed=1 << 40)
    assert [order for order, _ in plot.telling_blocks(timeline)] == [16, 18, 20]


@pytest.mark.parametrize("events", [0, 1, 3, 10**12])
def test_any_number_of_events_makes_a_picture(events):
    ElementTree.fromstring(picture_of(timeline_of([(events, 0, 0, 0)], events=events)))


def test_the_axes_have_units(timeline):
    shown = texts(picture_of(timeline))
    assert "events" in shown and "64 KiB" in shown and "0 B" in shown
