"""What an allocator tells of itself: walk, statistics, sections, slabs, fragmentation, repr."""

import inspect
import pickle
import random

import pytest

import bsa
from helpers import (
    MIB,
    exhaust,
    fragmentation_index,
    in_child,
    poke,
    region_of_pages,
    unchanged,
    unusable_free_index,
)

PAGE = 4096
ORDERS = range(bsa.MAX_ORDER + 1)


# --- the walk ---


def test_the_walk_yields_address_usable_size_and_kind_of_each_allocation(heap):
    small, large = heap.malloc(60), heap.malloc(5000)
    block, parked = heap.alloc(60), heap.alloc(10_000)
    memoryview(parked).release()
    expected = [
        (small, 64, "object"),
        (large, 8192, "pages"),
        (block.address, 64, "block"),
        (parked.address, 16384, "parked"),
    ]
    parked.free()
    assert sorted(heap.walk()) == sorted(expected)


def test_the_walk_is_in_address_order_within_each_section(make):
    heap = make(region_of_pages(16))
    heap.add_region(region_of_pages(64))
    for size in (100, 3000, 10, 9000, 700, 64) * 5:
        heap.malloc(size)
    walked = [(heap.section_of(address).index, address) for address, _, _ in heap.walk()]
    assert walked == sorted(walked)
    assert len(walked) == len(heap) == 30


def test_the_walk_is_a_snapshot(heap):
    addresses = [heap.malloc(100) for _ in range(10)]
    walk = heap.walk()
    heap.free_many(addresses)
    heap.malloc(10_000)
    assert [address for address, _, _ in walk] == sorted(addresses)


def test_a_walk_is_an_iterator_with_a_length_hint(heap):
    heap.malloc(10), heap.malloc(10_000)
    walk = heap.walk()
    assert iter(walk) is walk
    assert walk.__length_hint__() == 2
    next(walk)
    assert walk.__length_hint__() == 1
    next(walk)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(walk)


def test_a_walk_outlives_its_allocator():
    with bsa.Allocator(1 * MIB) as heap:
        heap.malloc(10)
        walk = heap.walk()
    del heap
    assert len(list(walk)) == 1


# --- statistics ---

FIELDS = """current_bytes current_count peak_bytes peak_count total_bytes total_count failures
parked_bytes per_class per_order""".split()


def test_statistics_have_the_documented_fields(heap):
    stats = heap.stats()
    assert isinstance(stats, bsa.Stats) and isinstance(stats, tuple)
    assert set(FIELDS) <= set(type(stats).__match_args__)


def test_statistics_can_be_pickled(heap):
    heap.malloc(10)
    stats = heap.stats()
    assert pickle.loads(pickle.dumps(stats)) == stats


def test_statistics_of_a_new_heap_are_zero(heap):
    stats = heap.stats()
    assert stats[:8] == (0,) * 8
    assert all(live == ever == 0 for _, live, ever in stats.per_class)
    assert all(live == ever == 0 for live, ever in stats.per_order)


def test_statistics_count_bytes_as_granted(heap):
    address = heap.malloc(60)
    block = heap.alloc(5000)
    stats = heap.stats()
    assert (stats.current_bytes, stats.current_count) == (64 + 8192, 2)
    heap.free(address)
    stats = heap.stats()
    assert (stats.current_bytes, stats.current_count) == (8192, 1)
    assert (stats.total_bytes, stats.total_count) == (64 + 8192, 2)
    block.free()
    assert heap.stats().current_bytes == 0


def test_current_bytes_are_the_sum_over_the_walk(heap):
    rng = random.Random(1)
    addresses = [heap.malloc(rng.randrange(6000)) for _ in range(300)]
    heap.free_many(addresses[::3])
    assert heap.stats().current_bytes == sum(size for _, size, _ in heap.walk())


def test_the_peak_is_the_most_there_has_been(heap):
    addresses = [heap.malloc(size) for size in (64, 8192, 64)]
    heap.free_many(addresses)
    heap.malloc(64)
    stats = heap.stats()
    assert (stats.peak_bytes, stats.peak_count) == (8192 + 128, 3)
    assert (stats.current_bytes, stats.current_count) == (64, 1)


def test_the_peak_is_exact_across_slots(heap):
    with bsa.cpu(0):
        heap.free(heap.malloc(64))
    with bsa.cpu(1):
        heap.free(heap.malloc(64))
    assert (heap.stats().peak_bytes, heap.stats().peak_count) == (64, 1)


def test_the_peak_starts_anew_when_it_is_reset(heap):
    kept = heap.malloc(64)
    heap.free(heap.malloc(100_000))
    heap.reset_peak()
    stats = heap.stats()
    assert (stats.peak_bytes, stats.peak_count) == (64, 1)
    assert stats.total_count == 2
    heap.free(kept)
    heap.malloc(64)
    assert heap.stats().peak_bytes == 64


def test_each_refused_try_is_a_failure(heap):
    for request in (lambda: heap.malloc(32 * MIB), lambda: heap.alloc_pages(1 << 13)):
        before = heap.stats().failures
        with pytest.raises(bsa.OutOfMemoryError):
            request()
        assert heap.stats().failures == before + 1
    answers = iter([True, True, False])
    heap.on_oom = lambda allocator, size: next(answers)
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(32 * MIB)
    assert heap.stats().failures == 5


def test_a_successful_or_invalid_request_is_no_failure(heap):
    heap.malloc(10)
    with pytest.raises(bsa.InvalidParamError):
        heap.alloc_pages(0)
    assert heap.stats().failures == 0


def test_use_is_told_per_class(heap):
    addresses = [heap.malloc(size) for size in (60, 60, 8, 2048)]
    heap.free(addresses[0])
    per_class = {size: (live, ever) for size, live, ever in heap.stats().per_class}
    assert tuple(per_class) == heap.size_classes
    used = {size: use for size, use in per_class.items() if use != (0, 0)}
    assert used == {64: (1, 2), 8: (1, 1), 2048: (1, 1)}


def test_use_is_told_per_order(heap):
    addresses = [heap.malloc(size) for size in (5000, 5000, 4000)]
    heap.alloc_pages(5, exact=True).detach()
    heap.free(addresses[0])
    per_order = heap.stats().per_order
    assert len(per_order) == bsa.MAX_ORDER + 1
    assert per_order[:4] == ((1, 1), (1, 2), (0, 0), (1, 1))


def test_use_per_class_counts_what_other_slots_freed(heap):
    with bsa.cpu(0):
        address = heap.malloc(64)
    with bsa.cpu(1):
        heap.free(address)
    assert (64, 0, 1) in heap.stats().per_class


def test_requested_bytes_are_exact_for_blocks_and_pages(heap):
    blocks = [heap.alloc(size) for size in (0, 1, 60, 2000, 5000)]
    blocks.append(heap.alloc_pages(3))
    assert heap.requested_bytes == 7061 + 3 * PAGE
    for block in blocks:
        block.free()
    assert heap.requested_bytes == 0


def test_requested_bytes_follow_a_resize(heap):
    block = heap.alloc(10)
    for size in (60, 5000, 7000, 100, 0, 100_000):
        block.resize(size)
        assert heap.requested_bytes == size


def test_requested_bytes_count_a_raw_small_object_as_granted(heap):
    heap.malloc(60)
    heap.malloc(5000)
    assert heap.requested_bytes == 64 + 5000


def test_a_detached_small_block_counts_as_granted(heap):
    address = heap.alloc(60).detach()
    assert heap.requested_bytes == 64
    block = heap.block(address)
    assert heap.requested_bytes == block.size == 64
    block.free()
    assert heap.requested_bytes == 0


def test_failures_and_refusals_leave_the_sums_alone(heap):
    heap.alloc(60).detach()
    with unchanged(heap):
        for request in (
            lambda: heap.malloc(32 * MIB),
            lambda: heap.malloc_many(1 << 30, 1000),
            lambda: heap.free(1),
        ):
            with pytest.raises((bsa.OutOfMemoryError, bsa.NotFoundError)):
                request()


# --- sections ---

SECTION = """index start size total_pages free_pages region_start region_size metadata_size buffer
free_blocks page_states""".split()


@pytest.mark.parametrize("name", SECTION)
def test_each_attribute_of_a_section_has_a_docstring(name):
    assert inspect.getdoc(getattr(bsa.Section, name))


def test_a_section_is_metadata_then_a_heap_of_whole_pages(make):
    memory = memoryview(bytearray(1 * MIB))[100:-100]
    section = make(memory).sections[0]
    first_page = -(-section.region_start // PAGE) * PAGE
    assert section.start == first_page + section.metadata_size
    assert section.size == section.total_pages * PAGE
    assert section.region_size == memory.nbytes
    spare = section.region_start + section.region_size - (section.start + section.size)
    assert 0 <= spare < PAGE


def test_metadata_takes_little(make):
    section = make(64 * MIB).sections[0]
    assert section.metadata_size <= 0.024 * section.region_size


def test_page_states_are_one_byte_a_page(heap):
    section = heap.sections[0]
    assert section.page_states() == bytes(section.total_pages)
    small, cached, pages = heap.malloc(64), heap.malloc(128), heap.malloc(3 * PAGE)
    heap.free(cached)
    heap.malloc(256), heap.free(heap.malloc(256))
    states = section.page_states()
    assert type(states) is bytes and len(states) == section.total_pages
    for address in (small, cached, pages, pages + 3 * PAGE, section.start + section.size - 1):
        number = states[(address - section.start) // PAGE]
        assert bsa.PageState(number).name.lower() == heap.page_state(address)
    assert states.count(bsa.PageState.BLOCK) == 4
    assert PAGE * states.count(bsa.PageState.FREE) == heap.managed_bytes - heap.allocated_bytes


def test_every_page_state_has_a_name(heap):
    with bsa.cpu(0):
        first = [heap.malloc(2048) for _ in range(40)]
        pages = heap.malloc(10_000)
        heap.free_many(first[:-1])
        states = {heap.page_state(address) for address in [*first, pages]}
    assert states == {"block", "slab", "empty_slab", "free"}
    assert [state.name for state in bsa.PageState] == ["FREE", "BLOCK", "SLAB", "EMPTY_SLAB"]
    assert [int(state) for state in bsa.PageState] == [0, 1, 2, 3]


def test_any_address_in_a_heap_has_a_page_state_and_a_section(heap):
    section = heap.sections[0]
    address = heap.malloc(3 * PAGE)
    for inside in (address + 1, address + 2 * PAGE + 77):
        assert heap.page_state(inside) == "block"
    for edge in (section.start, section.start + section.size - 1):
        assert heap.section_of(edge) is section


ADDRESS_QUERIES = ["usable_size", "section_of", "slab_of", "page_state", "free", "block"]


@pytest.mark.parametrize("name", ADDRESS_QUERIES)
def test_foreign_addresses_are_not_found(heap, name):
    section = heap.sections[0]
    foreign = [0, 1, section.region_start, section.start - 1, section.start + section.size]
    foreign += [1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1]
    for address in foreign:
        with unchanged(heap), pytest.raises(bsa.NotFoundError):
            getattr(heap, name)(address)


def test_the_free_lists_tell_every_free_block(heap):
    rng = random.Random(2)
    addresses = [heap.malloc(rng.randrange(1, 50_000)) for _ in range(300)]
    heap.free_many(addresses[::2])
    section = heap.sections[0]
    lists = [section.free_list(order) for order in ORDERS]
    assert tuple(map(len, lists)) == section.free_blocks()
    pages = sum(len(blocks) << order for order, blocks in enumerate(lists))
    assert pages == section.free_pages
    assert all(
        heap.page_state(address) == "free" and address % (PAGE << order) == 0
        for order, blocks in enumerate(lists)
        for address in blocks
    )


@pytest.mark.parametrize(
    "order, error",
    [
        (21, bsa.InvalidParamError),
        (1 << 32, bsa.InvalidParamError),
        (-1, bsa.InvalidParamError),
        (1 << 64, OverflowError),
        ("0", TypeError),
        (0.0, TypeError),
    ],
)
def test_an_order_that_no_block_has_is_refused(heap, order, error):
    for query in (heap.unusable_index, heap.extfrag_index, heap.sections[0].free_list):
        with pytest.raises(error):
            query(order)


# --- slabs ---

SLAB = "size base nbytes capacity free_count remote_free_count cpu state bitmap objects".split()


@pytest.mark.parametrize("name", SLAB)
def test_each_attribute_of_a_slab_has_a_docstring(name):
    assert inspect.getdoc(getattr(bsa.Slab, name))


@pytest.mark.parametrize("size", [8, 64, 2048])
def test_a_bitmap_has_a_bit_for_each_object_and_one_is_free(heap, size):
    addresses = [heap.malloc(size) for _ in range(11)]
    heap.free_many(addresses[2:5])
    for slab in heap.slabs(size):
        assert len(slab.bitmap) == (slab.capacity + 7) // 8
        bits = int.from_bytes(slab.bitmap, "little")
        assert bits >> slab.capacity == 0
        live = [slab.base + i * slab.stride for i in range(slab.capacity) if not bits >> i & 1]
        assert slab.objects() == tuple(live)
        assert slab.free_count == slab.capacity - len(live)
    left = addresses[:2] + addresses[5:]
    assert sorted(a for slab in heap.slabs(size) for a in slab.objects()) == sorted(left)


def test_slabs_are_told_of_one_class_or_of_all(heap):
    for size in (10, 60, 60, 2000):
        heap.malloc(size)
    assert sorted(slab.size for slab in heap.slabs()) == [16, 64, 2048]
    assert [slab.size for slab in heap.slabs(60)] == [64]
    assert [slab.size for slab in heap.slabs(size=2048)] == [2048]
    assert [slab.size for slab in heap.slabs(None)] == [slab.size for slab in heap.slabs()]
    assert heap.slabs(100) == heap.slabs(2049) == heap.slabs(1 << 63) == []


def test_slabs_are_told_in_address_order(heap):
    for size in heap.size_classes[::-1]:
        heap.malloc(size)
    bases = [slab.base for slab in heap.slabs()]
    assert bases == sorted(bases)


@pytest.mark.parametrize(
    "size, error", [(-1, bsa.InvalidParamError), (1 << 64, OverflowError), ("8", TypeError)]
)
def test_slabs_of_what_is_no_size_are_refused(heap, size, error):
    with pytest.raises(error):
        heap.slabs(size)


def test_the_slab_of_an_address_is_found_from_anywhere_in_it(heap):
    slab = heap.slab_of(heap.malloc(2048))
    for address in (slab.base, slab.base + 1, slab.base + slab.nbytes - 1):
        assert heap.slab_of(address).base == slab.base


def test_an_address_in_a_page_block_or_free_page_has_no_slab(heap):
    pages = heap.malloc(10_000)
    assert heap.slab_of(pages) is None
    assert heap.slab_of(heap.sections[0].start + 10 * MIB) is None


def test_a_slab_is_a_snapshot(heap):
    address = heap.malloc(64)
    slab = heap.slab_of(address)
    heap.free(address)
    heap.close()
    assert slab.objects() == (address,)
    assert repr(slab)


# --- fragmentation ---


def shapes():
    """Heaps with free blocks of different kinds."""
    yield "new", lambda heap: None
    yield "full", lambda heap: exhaust(heap.malloc, PAGE)
    yield "every second page", lambda heap: heap.free_many(exhaust(heap.malloc, PAGE)[::2])
    yield "one page", lambda heap: heap.free(exhaust(heap.malloc, PAGE)[5])
    yield "every third pair", lambda heap: heap.free_many(exhaust(heap.malloc, 2 * PAGE)[::3])
    for seed in range(5):
        yield f"random {seed}", lambda heap, seed=seed: churn(heap, random.Random(seed))


def churn(heap, rng):
    addresses = []
    for _ in range(1500):
        try:
            addresses.append(heap.malloc(rng.choice([64, 3000, 5000, 20_000])))
        except bsa.OutOfMemoryError:
            pass
        if rng.random() < 0.4:
            heap.free(addresses.pop(rng.randrange(len(addresses))))


@pytest.mark.parametrize("name, shape", [pytest.param(*shape, id=shape[0]) for shape in shapes()])
def test_the_indices_are_those_of_linux(make, name, shape):
    heap = make(region_of_pages(1000, 3 * PAGE))
    shape(heap)
    free = heap.free_blocks()
    for order in ORDERS:
        assert heap.unusable_index(order) == unusable_free_index(free, order) / 1000
        assert heap.extfrag_index(order) == fragmentation_index(free, order) / 1000


def test_where_nothing_is_free_all_is_unusable_and_nothing_is_fragmented(make):
    heap = make(region_of_pages(64))
    exhaust(heap.malloc, PAGE)
    assert heap.free_pages == 0
    for order in ORDERS:
        assert heap.unusable_index(order) == 1.0
        assert heap.extfrag_index(order) == 0.0


def test_without_a_section_nothing_is_free(make):
    heap = make()
    assert heap.unusable_index(0) == 1.0
    assert heap.extfrag_index(0) == 0.0


def test_the_error_tells_the_unusable_index_of_the_request(make):
    heap = make(region_of_pages(64))
    heap.free_many(exhaust(heap.malloc, PAGE)[::2])
    with pytest.raises(bsa.OutOfMemoryError) as info:
        heap.alloc_pages(3)
    assert info.value.unusable_index == heap.unusable_index(2) == 1.0


def test_the_largest_free_block_is_told_in_bytes(make):
    heap = make(region_of_pages(64))
    assert heap.largest_free == 64 * PAGE
    heap.malloc(1)
    assert heap.largest_free == 32 * PAGE


# --- repr ---


def test_repr_tells_sections_pages_and_live_allocations(heap):
    heap.malloc(10)
    pages = f"{heap.free_pages} of {heap.total_pages} pages of 4096 bytes free, 1 live"
    assert repr(heap) == f"<bsa.Allocator: 1 section, {pages}>"
    heap.add_region(1 * MIB)
    assert "2 sections" in repr(heap)


def test_repr_of_a_section_tells_index_pages_and_address(heap):
    section = heap.sections[0]
    assert repr(section) == f"<bsa.Section 0: {section.total_pages} pages at {section.start:#x}>"


def test_repr_of_a_slab_tells_size_state_and_address(heap):
    slab = heap.slab_of(heap.malloc(64))
    text = repr(slab)
    assert "64 bytes" in text and f"{slab.base:#x}" in text and slab.state in text


def test_html_shows_the_numbers_and_a_map_of_the_pages(heap):
    heap.malloc(10), heap.malloc(100_000)
    html = heap._repr_html_()
    assert isinstance(html, str) and html.lstrip().startswith("<")
    assert f"{heap.total_pages:,}" in html


def test_html_of_an_empty_or_closed_allocator_is_html_too(make):
    heap = make()
    assert heap._repr_html_().lstrip().startswith("<")
    heap.close()
    assert "closed" in heap._repr_html_()


# --- the check ---


def test_check_passes_whatever_was_done(heap):
    rng = random.Random(3)
    live = []
    for step in range(2000):
        with bsa.cpu(rng.randrange(2)):
            if live and rng.random() < 0.45:
                heap.free(live.pop(rng.randrange(len(live))))
            else:
                live.append(heap.malloc(rng.choice([8, 64, 500, 3000, 20_000])))
        if step % 100 == 0:
            heap.check()
    heap.check()


def test_check_names_the_invariant_that_foreign_writes_broke():
    """In a process of its own: such a heap is not fit for anything else."""
    printed = in_child(
        """
        import bsa
        from helpers import aligned  # where the free blocks lie must not depend on the buffer's place
        memory = aligned(1 << 20)
        heap = bsa.Allocator(memory, cpus=1)
        keep = [heap.malloc(64), heap.malloc(10_000)]
        heap.check()
        section = heap.sections[0]
        start = section.start - section.metadata_size - section.region_start
        found = set()
        for place in range(start + 1024, start + section.metadata_size, 8):
            old = memory[place]
            for flipped in (0x10, 0x55):
                memory[place] = old ^ flipped
                try:
                    heap.check()
                except bsa.CorruptionError as error:
                    found.add(str(error).partition(" (")[0])
            memory[place] = old
        heap.check()
        assert found >= {
            "violated: heads tile the heap",
            "violated: a listed block is free and of the list's order",
            "violated: a slab's free count is that of its bitmap",
            "violated: an object is freed from one side",
            "violated: bitmaps have bits where objects start alone",
        }, found
        print("ok", flush=True)
        import os
        os._exit(0)
    """
    )
    assert printed == "ok\n"


def test_check_of_an_allocator_without_sections_passes(make):
    make().check()


def test_writing_through_raw_addresses_within_their_bytes_breaks_nothing(heap):
    for size in heap.size_classes:
        address = heap.malloc(size)
        poke(address, b"\xff" * size)
    for size in (5000, 100_000):
        address = heap.malloc(size)
        poke(address, b"\xff" * heap.usable_size(address))
    heap.check()
