"""What pins an order: compared with trying all sets of blocks."""

import itertools
import random
import xml.etree.ElementTree as ElementTree

import pytest

import bsa
from bsa.births import Steps
from bsa import views
from helpers import aligned

PAGE = 256
TEXT = "{http://www.w3.org/2000/svg}text"


def build(seed):
    """A small heap with a few live allocations; the same for the same seed."""
    rng = random.Random(seed)
    heap = bsa.Allocator(aligned(24 * PAGE, 16 * PAGE, PAGE * (seed % 3)), page_size=PAGE, cpus=2)
    live = []
    for _ in range(60):
        with bsa.cpu(rng.randrange(2)):
            if len(live) < 8 and rng.random() < 0.6:
                try:
                    live.append(heap.malloc(rng.choice([16, 100, 128, 200, 256, 500, 1000])))
                except bsa.OutOfMemoryError:
                    pass
            elif live:
                heap.free(live.pop(rng.randrange(len(live))))
    return heap, live


def is_enough(seed, order, chosen):
    """Whether freeing the allocations of these numbers, and trimming, gives a block of the order."""
    heap, live = build(seed)
    with heap:
        for index in chosen:
            heap.free(live[index])
        heap.trim()
        heap.check()
        return any(heap.free_blocks()[order:])


def best_cost(seed, order, sizes):
    """The least (allocations, bytes) that is enough: by trying all sets; None: none is."""
    for count in range(len(sizes) + 1):
        sets = itertools.combinations(range(len(sizes)), count)
        costs = [sum(sizes[i] for i in chosen) for chosen in sets if is_enough(seed, order, chosen)]
        if costs:
            return count, min(costs)
    return None


@pytest.mark.parametrize("seed", range(12))
def test_no_smaller_set_of_blocks_is_enough_and_this_one_is(seed):
    heap, live = build(seed)
    sizes = [heap.usable_size(address) for address in live]
    for order in range(5):
        best = best_cost(seed, order, sizes)
        if best is None:
            with pytest.raises(bsa.InvalidParamError, match="no section has room"):
                bsa.pins(heap, order)
            continue
        found = bsa.pins(heap, order)
        assert (len(found), found.size) == best
        assert is_enough(seed, order, [live.index(pin.address) for pin in found])


def test_pins_lie_in_the_window_by_address_and_say_what_they_are():
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        for block in [heap.malloc(4096) for _ in range(heap.free_pages)][100:101]:
            heap.free(block)
        small = heap.malloc(100)  # in a slab of that one page
        found = bsa.pins(heap, 2)
        kinds = {pin.address: pin.kind for pin in found}
        assert kinds.pop(small) == "object", "of four blocks each, those of the fewest bytes"
        assert list(kinds.values()) == ["pages"] * 3
        start = heap.sections[0].region_start + found.start
        assert [pin.address for pin in found] == [start + k * 4096 for k in range(4)]
        assert all(pin.birth is None for pin in found)
        assert found.size == 3 * 4096 + heap.usable_size(small)
        assert f"4 allocations of {found.size:,} bytes" in repr(found)


def test_a_free_block_is_pinned_by_nothing():
    with bsa.Allocator(1 << 20) as heap:
        assert len(bsa.pins(heap, 3)) == 0
        assert bsa.pins(heap, 3).size == 0
        assert "none, already free" in repr(bsa.pins(heap, 3))
        assert "already free" in views.pins_map(heap, 3).picture().description


def test_pins_are_a_sequence():
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        while heap.free_pages:
            heap.malloc(4096)
        found = bsa.pins(heap, 2)
        pins = list(found)
        assert len(pins) == len(found) == 4
        assert found[:2] == tuple(pins[:2]) and found[-1] == pins[-1]
        with pytest.raises(IndexError):
            found[4]


@pytest.mark.parametrize("order", [-1, 21, 12])
def test_an_order_for_which_there_is_no_room_is_refused(order):
    with bsa.Allocator(1 << 20) as heap, pytest.raises(bsa.InvalidParamError):
        bsa.pins(heap, order)


def test_of_equals_in_several_sections_the_lowest_address_is_found():
    memory = memoryview(bytearray(1 << 20))
    with bsa.Allocator() as heap:
        high = heap.add_region(memory[1 << 19 :])
        low = heap.add_region(memory[: 1 << 19])
        assert high.start > low.start
        assert bsa.pins(heap, 0).section == low.index


def test_the_best_of_several_sections_is_found():
    with bsa.Allocator(1 << 20, cpus=1) as heap:
        heap.add_region(1 << 20)
        first, second = heap.sections
        for _ in range(heap.total_pages):
            heap.malloc(4096)
        in_second = [a for a, _, _ in heap.walk() if heap.section_of(a) is second]
        start = next(a for a in in_second if a % (8 * 4096) == 0)
        for address in range(start + 4096, start + 8 * 4096, 4096):
            heap.free(address)
        found = bsa.pins(heap, 3)
        assert found.section == second.index
        assert [pin.address for pin in found] == [start]


def test_a_block_of_many_windows_pins_each_of_them_alone():
    with bsa.Allocator(64 << 20, cpus=1) as heap:
        large = heap.malloc(32 << 20)
        while heap.free_pages:
            heap.malloc(heap.page_size)
        assert [pin.address for pin in bsa.pins(heap, 2)] == [large]


def test_pins_owned_by_blocks_are_called_so():
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        blocks = [heap.alloc(100)]
        while heap.free_pages:
            blocks.append(heap.alloc(4096))
        assert {pin.kind for pin in bsa.pins(heap, 3)} == {"block"}


def test_the_map_shows_the_window_and_lists_the_pins():
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        pages = [heap.malloc(4096) for _ in range(heap.free_pages)]
        heap.free_many([page for page in pages if page % 16384])
        view = views.pins_map(heap, 2)
        assert [span.end - span.start for span in view.spans if not span.is_free] == [4096]
        assert (view.spans[0].start, view.spans[-1].end) == (0, 4 * 4096)
        texts = [text.text for text in ElementTree.fromstring(str(view.picture())).iter(TEXT)]
    (pin,) = view.found
    assert f"{pin.address:#x}: pages, 4 KiB" in texts
    assert {"page blocks", "free"} <= set(texts)
    assert "objects" not in texts


def test_the_caption_tells_one_from_many():
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        pages = [heap.malloc(4096) for _ in range(heap.free_pages)]
        heap.free_many([page for page in pages if page % 16384])
        one, many = (views.pins_map(heap, order).picture().description for order in (2, 4))
    assert one.endswith("freeing one allocation, 4 KiB, would give such a block.")
    assert "freeing 4 allocations, 16 KiB together, would give such a block, and no fewer" in many


# --- the events that made them ---


def random_trace(seed, threads):
    rng, live, events = random.Random(seed), [], []
    for _ in range(600):
        kind, thread = rng.random(), rng.randrange(threads)
        if kind < 0.55 or not live:
            id = next(i for i in itertools.count() if i not in live)
            live.append(id)
            align = rng.choice([0, 0, 64, 4096])
            events.append((rng.choice([1, 2]), id, rng.randrange(9000), align, thread))
        elif kind < 0.7:
            events.append((3, rng.choice(live), rng.randrange(9000), 0, thread))
        else:
            events.append((4, live.pop(rng.randrange(len(live))), 0, 0, thread))
    return bsa.Trace.from_events(events)


def survivors(trace):
    """By hand: id to (event, size, thread) of what made it what it is."""
    live = {}
    for number, event in enumerate(trace):
        if event.op == bsa.TraceOp.FREE:
            del live[event.id]
        else:
            live[event.id] = number, event.size, event.thread
    return sorted(live.values())


@pytest.mark.parametrize("threads", [1, 3])
def test_births_name_the_events_and_blocks_lie_where_a_replay_puts_them(threads):
    trace = random_trace(threads, threads)
    with bsa.Allocator(8 << 20, cpus=2) as mine, bsa.Allocator(8 << 20, cpus=2) as theirs:
        births = bsa.replay_births(trace, mine)
        bsa.replay(trace, theirs)
        assert sorted(map(tuple, births.values())) == survivors(trace)
        layouts = [
            [(a - heap.sections[0].start, size, kind) for a, size, kind in heap.walk()]
            for heap in (mine, theirs)
        ]
        assert layouts[0] == layouts[1]
        assert sorted(births) == sorted(a for a, _, _ in mine.walk())


def test_a_pin_has_its_birth():
    with bsa.Allocator(aligned(1 << 20), cpus=1) as heap:
        sizes = [3000 + k for k in range(heap.free_pages)]
        trace = bsa.Trace.from_events([(1, k, size, 0, 0) for k, size in enumerate(sizes)])
        births = bsa.replay_births(trace, heap)
        found = bsa.pins(heap, 1, births=births)
        assert len(found) == 2
        for pin in found:
            assert pin.birth == births[pin.address]
            assert trace[pin.birth.event].size == pin.birth.size == 3000 + pin.birth.event


def test_the_slot_of_the_thread_is_what_it_was_after_a_replay():
    trace = bsa.Trace.from_events([(1, 0, 10, 0, 0)])
    with bsa.Allocator(1 << 20, cpus=4) as heap, bsa.cpu(3):
        bsa.replay_births(trace, heap)
        assert bsa.current_cpu() == 3


def test_births_can_be_looked_at_after_any_event():
    trace = random_trace(5, 2)
    with bsa.Allocator(8 << 20, cpus=2) as heap:
        steps = Steps(trace, heap)
        for event in (0, 1, 7, 7, 300, 600):
            steps.run(event)
            births = steps.births()
            assert sorted(map(tuple, births.values())) == survivors(trace[:event])
            assert sorted(births) == sorted(a for a, _, _ in heap.walk())


def test_births_of_an_empty_trace_are_none():
    with bsa.Allocator(1 << 20) as heap:
        assert bsa.replay_births(bsa.Trace.from_events([]), heap) == {}


def test_births_are_of_a_trace_that_fits():
    huge = bsa.Trace.from_events([(1, 0, 10, 0, 0), (1, 1, 2 << 20, 0, 0)])
    with bsa.Allocator(1 << 20) as heap:
        with pytest.raises(bsa.OutOfMemoryError, match="event 1"):
            bsa.replay_births(huge, heap)
        with pytest.raises(TypeError, match="list"):
            bsa.replay_births([], heap)
        with pytest.raises(TypeError, match="bytes"):
            bsa.replay_births(huge, b"")
