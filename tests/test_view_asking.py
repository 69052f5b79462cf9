"""What if I ask for N bytes: compared with asking."""

import random
import xml.etree.ElementTree as ElementTree

import pytest

import bsa
from bsa.views import request_curve
from helpers import aligned

SVG = "{http://www.w3.org/2000/svg}"
PAGE = 256


def build(seed, limit=None):
    """A nearly full heap of small pages; the same for the same seed."""
    rng = random.Random(seed)
    memory = aligned(60 * PAGE, 64 * PAGE, PAGE * (seed % 5))
    heap = bsa.Allocator(memory, page_size=PAGE, cpus=2)
    live = []
    for _ in range(200):
        with bsa.cpu(rng.randrange(2)):
            try:
                live.append(heap.malloc(rng.choice([16, 48, 100, 128, 200, 256, 500, 1000])))
            except bsa.OutOfMemoryError:
                for _ in range(rng.randrange(len(live))):
                    heap.free(live.pop(rng.randrange(len(live))))
    heap.limit = limit
    return heap


def served(heap, size):
    """Bytes that a request gets, or None."""
    try:
        address = heap.malloc(size)
    except bsa.OutOfMemoryError:
        return None
    return heap.usable_size(address)


@pytest.mark.parametrize("limit", [None, 40 * PAGE])
@pytest.mark.parametrize("seed", range(6))
def test_the_curve_says_what_asking_gives(seed, limit):
    with bsa.cpu(seed % 2):
        curve = request_curve(build(seed, limit))
        sizes = {size for part in curve.ranges for size in (part.least, part.most)}
        for size in sorted(sizes):
            part = curve.of(size)
            with build(seed, limit) as heap:
                answer = served(heap, size)
            assert (answer is not None) == part.is_granted, (size, part)
            assert answer in (None, part.served)


def test_the_ranges_cover_every_size_once():
    with bsa.Allocator(1 << 20) as heap:
        ranges = request_curve(heap).ranges
    assert ranges[0].least == 1
    assert [part.most + 1 for part in ranges[:-1]] == [part.least for part in ranges[1:]]
    assert ranges[-1].most == 128 * 4096


def test_the_largest_is_the_largest_that_is_granted():
    with bsa.Allocator(1 << 20) as heap:
        assert request_curve(heap).largest == heap.largest_free
        while heap.free_pages:
            heap.malloc(heap.page_size)
        assert request_curve(heap).largest == 0
        assert "No request" in request_curve(heap).picture().description


def test_nothing_is_allocated():
    with bsa.Allocator(1 << 20) as heap:
        before = heap.stats(), heap.free_blocks()
        request_curve(heap).picture()
        assert (heap.stats(), heap.free_blocks()) == before


def test_a_size_beyond_any_block_is_no_part_of_the_curve():
    with bsa.Allocator(1 << 20) as heap, pytest.raises(LookupError):
        request_curve(heap).of(1 << 30)


def test_granted_and_refused_sizes_have_different_colours_and_a_text():
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        heap.malloc(heap.largest_free)
        root = ElementTree.fromstring(str(request_curve(heap).picture()))
    shapes = {p[0].text.split(" bytes")[0]: p.get("fill") for p in root.iter(SVG + "polygon")}
    assert shapes["2,049 to 4,096"] != shapes["262,145 to 524,288"]
