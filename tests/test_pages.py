"""Pages: the buddy allocator seen through the Python interface, and low memory."""

from random import Random

import pytest

import bsa
from helpers import GIB, KIB, MIB, aligned, exhaust, region_of_pages, state, unchanged

PAGE = 4096
ORDERS = bsa.MAX_ORDER + 1


def cover(first, count):
    """(start, order) of the largest naturally aligned blocks that cover `count` pages from page number `first`."""
    blocks, page = [], first
    while page < first + count:
        order = min(bsa.MAX_ORDER, (page & -page).bit_length() - 1 if page else bsa.MAX_ORDER)
        while page + (1 << order) > first + count:
            order -= 1
        blocks.append((page, order))
        page += 1 << order
    return blocks


def counts(blocks):
    result = [0] * ORDERS
    for _, order in blocks:
        result[order] += 1
    return tuple(result)


@pytest.fixture
def paged(make):
    """A heap of 1024 pages that starts at a multiple of 4 MiB: one free block of order 10."""
    heap = make(region_of_pages(1024))
    assert heap.free_blocks() == counts([(0, 10)])
    return heap


# --- the start ---


@pytest.mark.parametrize("pages", [1, 2, 3, 7, 64, 100, 1000])
@pytest.mark.parametrize("offset", [0, 1, 3, 8, 500])
def test_a_new_heap_is_covered_by_the_largest_naturally_aligned_blocks(make, pages, offset):
    heap = make(region_of_pages(pages, offset * PAGE))
    (section,) = heap.sections
    expected = cover(section.start // PAGE, pages)
    assert (section.total_pages, section.free_pages) == (pages, pages)
    assert section.free_blocks() == heap.free_blocks() == counts(expected)
    for order in range(ORDERS):
        listed = [page * PAGE for page, o in expected if o == order]
        assert list(section.free_list(order)) == listed


@pytest.mark.parametrize("page_size", [256, 1024, 64 * KIB, 2 * MIB])
def test_any_page_size_covers_its_heap_alike(make, page_size):
    heap = make(region_of_pages(37, 3 * page_size, page_size), page_size=page_size)
    start = heap.sections[0].start
    assert start % page_size == 0
    assert heap.free_blocks() == counts(cover(start // page_size, 37))


def test_no_block_is_larger_than_the_largest_order():
    with bsa.Allocator(10 * GIB, cpus=1) as heap:
        assert heap.free_blocks()[-1] >= 1
        assert heap.largest_free == PAGE << bsa.MAX_ORDER
        block = heap.alloc_pages(1 << bsa.MAX_ORDER)
        assert block.usable_size == 4 * GIB
        heap.check()


def test_first_allocations_come_in_address_order(paged):
    start = paged.sections[0].start
    addresses = [paged.alloc_pages(1).detach() for _ in range(1024)]
    assert addresses == [start + i * PAGE for i in range(1024)]


# --- taking ---


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9, 100, 512, 513, 1024])
def test_a_count_is_rounded_up_to_a_power_of_two(paged, count):
    rounded = 1 << (count - 1).bit_length()
    block = paged.alloc_pages(count)
    assert block.size == count * PAGE
    assert block.usable_size == rounded * PAGE
    assert paged.free_pages == 1024 - rounded
    assert paged.allocated_bytes == rounded * PAGE
    assert block.address % (rounded * PAGE) == 0


@pytest.mark.parametrize(
    "count",
    [0, (1 << 20) + 1, 1 << 31, 1 << 32, (1 << 52) + 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 4096],
)
def test_counts_that_no_block_has_are_invalid(paged, count):
    for request in (paged.alloc_pages, paged.alloc_pages_lowmem):
        with unchanged(paged), pytest.raises(bsa.InvalidParamError):
            request(count)
    with unchanged(paged), pytest.raises(bsa.InvalidParamError):
        paged.alloc_pages(count, exact=True)


@pytest.mark.parametrize("align", [1, 2, 2048, 4097, 6000, 3 * PAGE, (1 << 64) - 1])
def test_alignments_below_a_page_or_no_power_of_two_are_invalid(paged, align):
    for request in (paged.alloc_pages, paged.alloc_pages_lowmem):
        with unchanged(paged), pytest.raises(bsa.InvalidParamError):
            request(1, align)


@pytest.mark.parametrize("align", [None, 0, PAGE])
def test_no_alignment_is_that_of_a_page(paged, align):
    assert paged.alloc_pages(1, align).address % PAGE == 0
    assert paged.alloc_pages(1, align=align).address % PAGE == 0


def test_what_does_not_fit_is_out_of_memory(paged):
    for count in (1025, 2048, 1 << 20):
        with unchanged(paged), pytest.raises(bsa.OutOfMemoryError):
            paged.alloc_pages(count)


def test_the_smallest_block_that_fits_is_split(make):
    heap = make(region_of_pages(8 + 4 + 1))
    assert heap.free_blocks()[:4] == (1, 0, 1, 1)
    heap.alloc_pages(1).detach()
    assert heap.free_blocks()[:4] == (0, 0, 1, 1)
    heap.alloc_pages(2).detach()
    assert heap.free_blocks()[:4] == (0, 1, 0, 1)


def test_the_block_freed_last_is_taken_first(paged):
    addresses = [paged.alloc_pages(1).detach() for _ in range(8)]
    paged.free(addresses[2])
    paged.free(addresses[6])
    assert [paged.alloc_pages(1).detach() for _ in range(2)] == [addresses[6], addresses[2]]


def addresses_of_pairs(heap, seed, look):
    """Where the blocks lie of a program that often frees one at once and asks for it again; `look` comes in between."""
    start, random, live, found = heap.sections[0].start, Random(seed), [], []
    for _ in range(300):
        size = PAGE << random.choice([0, 0, 1, 4])
        for _ in range(random.randrange(1, 4)):
            live.append(heap.malloc(size))
            found.append(live[-1] - start)
            look(heap)
            if random.random() < 0.8:
                heap.free(live.pop(-1 if random.random() < 0.8 else random.randrange(len(live))))
                look(heap)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_looking_changes_no_address(make, seed):
    unseen = addresses_of_pairs(make(region_of_pages(4096)), seed, lambda heap: None)
    assert addresses_of_pairs(make(region_of_pages(4096)), seed, state) == unseen
    assert len(set(unseen)) < len(unseen)


# --- exactly as many ---


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 11, 100, 1000])
def test_exact_keeps_only_the_pages_asked_for(paged, count):
    block = paged.alloc_pages(count, exact=True)
    assert block.usable_size == block.size == count * PAGE
    assert paged.free_pages == 1024 - count
    assert paged.free_blocks() == counts(cover(count, 1024 - count))
    block.free()
    assert paged.free_blocks() == counts([(0, 10)])


def test_the_tail_of_an_exact_block_serves_others(paged):
    block = paged.alloc_pages(5, exact=True)
    assert paged.alloc_pages(1).address == block.address + 5 * PAGE
    assert paged.alloc_pages(2).address == block.address + 6 * PAGE


def test_an_exact_block_grows_back_into_its_tail(paged):
    block = paged.alloc_pages(5, exact=True)
    address = block.address
    for pages in (7, 6, 8, 3):
        block.resize(pages * PAGE)
        assert block.address == address
        assert block.usable_size >= pages * PAGE


# --- alignment ---


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 5, 64, 1023])
@pytest.mark.parametrize("count", [1, 2, 4, 7])
@pytest.mark.parametrize("align", [PAGE << shift for shift in (1, 2, 4, 9)])
def test_alignment_holds_wherever_the_heap_starts(make, offset, count, align):
    heap = make(region_of_pages(2048, offset * PAGE))
    block = heap.alloc_pages(count, align)
    assert block.address % align == 0
    rounded = 1 << (count - 1).bit_length()
    assert heap.free_pages == 2048 - rounded


def test_an_alignment_larger_than_the_block_takes_no_more_than_the_block(paged):
    addresses = [paged.alloc_pages(1, 64 * PAGE).detach() for _ in range(16)]
    start = paged.sections[0].start
    assert sorted(addresses) == [start + i * 64 * PAGE for i in range(16)]
    assert paged.free_pages == 1024 - 16
    with unchanged(paged), pytest.raises(bsa.OutOfMemoryError):
        paged.alloc_pages(1, 64 * PAGE)


def test_every_aligned_place_that_is_free_is_found(make):
    """However small the free blocks are and wherever the heap starts."""
    heap = make(region_of_pages(100, 61 * PAGE))
    singles = {block: heap.alloc_pages(1).detach() for block in range(100)}
    suitable = [address for address in singles.values() if address % (8 * PAGE) == 0]
    heap.free_many([a for a in singles.values() if a % (2 * PAGE) == 0])
    assert heap.free_blocks()[0] == heap.free_pages == 50  # no two of them are buddies
    taken = [heap.alloc_pages(1, 8 * PAGE).detach() for _ in suitable]
    assert sorted(taken) == sorted(suitable)
    with pytest.raises(bsa.OutOfMemoryError):
        heap.alloc_pages(1, 8 * PAGE)


@pytest.mark.parametrize("align", [8 * MIB, 1 * GIB, 1 << 40, 1 << 63])
def test_an_alignment_that_no_address_has_is_out_of_memory(make, align):
    heap = make(region_of_pages(64, 5 * PAGE, align=16 * MIB))
    for request in (heap.alloc_pages, heap.alloc_pages_lowmem, heap.malloc):
        with unchanged(heap), pytest.raises(bsa.OutOfMemoryError) as info:
            request(1, align)
    assert info.value.align == align


# --- giving back ---


def test_freed_blocks_merge_to_what_was_there_at_the_start(make):
    heap = make(region_of_pages(1000, 77 * PAGE))
    start = heap.free_blocks()
    for count in (1, 3, 16):
        addresses = exhaust(lambda: heap.alloc_pages(count).detach())
        for address in addresses[::2] + addresses[1::2]:
            heap.dealloc_pages(address, count)
        assert heap.free_blocks() == start


def test_a_block_merges_only_with_its_buddy(paged):
    addresses = [paged.alloc_pages(1).detach() for _ in range(8)]
    for index in (1, 2):  # neighbours, but no buddies
        paged.free(addresses[index])
    assert paged.free_blocks()[:2] == (2, 0)
    paged.free(addresses[0])
    assert paged.free_blocks()[:2] == (1, 1)
    paged.free(addresses[3])
    assert paged.free_blocks()[:4] == (0, 0, 1, 1)


def test_blocks_never_merge_across_sections(make):
    memory = aligned(4 * MIB)
    heap = make(memory[: 2 * MIB])
    heap.add_region(memory[2 * MIB :])
    start = [section.free_blocks() for section in heap.sections]
    heap.free_many(exhaust(heap.malloc, 2 * PAGE))
    assert [section.free_blocks() for section in heap.sections] == start


def test_an_exhausted_heap_recovers(paged):
    addresses = exhaust(lambda: paged.alloc_pages(1).detach())
    assert len(addresses) == 1024
    assert paged.free_pages == paged.largest_free == 0
    assert paged.free_blocks() == (0,) * ORDERS
    with pytest.raises(bsa.OutOfMemoryError):
        paged.alloc_pages(1)
    paged.free(addresses[500])
    assert paged.alloc_pages(1).address == addresses[500]
    paged.free_many(address for address in addresses if address in paged)
    assert paged.alloc_pages(1024).size == 1024 * PAGE


def test_fragmentation_keeps_large_requests_out_until_it_is_gone(paged):
    addresses = [paged.alloc_pages(1).detach() for _ in range(1024)]
    paged.free_many(addresses[::2])
    assert paged.free_pages == 512
    assert paged.free_blocks()[0] == 512
    with unchanged(paged), pytest.raises(bsa.OutOfMemoryError) as info:
        paged.alloc_pages(2)
    assert (info.value.free, info.value.largest_free) == (512 * PAGE, PAGE)
    assert info.value.unusable_index == 1.0
    paged.free_many(addresses[1::2])
    assert paged.alloc_pages(1024).size == 1024 * PAGE


@pytest.mark.parametrize("count", [1, 3, 4])
def test_dealloc_pages_frees_the_whole_block(paged, count):
    address = paged.alloc_pages(4).detach()
    paged.dealloc_pages(address, count)
    assert paged.free_pages == 1024


@pytest.mark.parametrize(
    "count, error",
    [
        (0, bsa.InvalidParamError),
        (5, bsa.InvalidParamError),
        (1 << 32, bsa.InvalidParamError),
        ((1 << 32) + 4, bsa.InvalidParamError),
        ((1 << 64) - 1, bsa.InvalidParamError),
        (1 << 64, OverflowError),
        (-1, bsa.InvalidParamError),
        ("1", TypeError),
    ],
)
def test_dealloc_pages_refuses_a_count_that_the_block_lacks(paged, count, error):
    address = paged.alloc_pages(4).detach()
    with unchanged(paged), pytest.raises(error):
        paged.dealloc_pages(address, count)


def test_dealloc_pages_refuses_a_count_beyond_an_exact_block(paged):
    address = paged.alloc_pages(5, exact=True).detach()
    with unchanged(paged), pytest.raises(bsa.InvalidParamError):
        paged.dealloc_pages(address, 6)
    paged.dealloc_pages(address, 5)
    assert paged.free_pages == 1024


def wrong_addresses(heap):
    block = heap.alloc_pages(4).detach()
    freed = heap.alloc_pages(1).detach()
    heap.free(freed)
    small, cached = heap.malloc(64), heap.malloc(128)
    heap.free(cached)
    section = heap.sections[0]
    return {
        "twice": (freed, bsa.NotAllocatedError),
        "an interior page": (block + PAGE, bsa.NotAllocatedError),
        "a slab": (heap.slab_of(small).base, bsa.NotAllocatedError),
        "an empty slab": (heap.slab_of(cached).base, bsa.NotAllocatedError),
        "a free page": (section.start + section.size - PAGE, bsa.NotAllocatedError),
        "one byte on": (block + 1, bsa.InvalidParamError),
        "one byte before": (block - 1, None),
        "metadata": (section.region_start + section.metadata_size // 2, bsa.NotFoundError),
        "the first byte of metadata": (section.start - section.metadata_size, bsa.NotFoundError),
        "before the heap": (section.start - 1, bsa.NotFoundError),
        "behind the heap": (section.start + section.size, bsa.NotFoundError),
        "nowhere": (0, bsa.NotFoundError),
        "the last address": ((1 << 64) - PAGE, bsa.NotFoundError),
    }


@pytest.mark.parametrize(
    "name",
    [
        "twice",
        "an interior page",
        "a slab",
        "an empty slab",
        "a free page",
        "one byte on",
        "one byte before",
        "metadata",
        "the first byte of metadata",
        "before the heap",
        "behind the heap",
        "nowhere",
        "the last address",
    ],
)
def test_dealloc_pages_refuses_what_is_no_page_block(heap, name):
    address, error = wrong_addresses(heap)[name]
    error = error or (bsa.InvalidParamError, bsa.NotFoundError)
    with unchanged(heap), pytest.raises(error):
        heap.dealloc_pages(address, 1)


# --- several sections ---


def test_the_first_section_is_used_first(make):
    heap = make(region_of_pages(16))
    heap.add_region(region_of_pages(16))
    blocks = [heap.alloc_pages(1) for _ in range(16)]
    assert {block.section.index for block in blocks} == {0}


def test_the_second_section_is_used_when_the_first_is_full(make):
    heap = make(region_of_pages(16))
    heap.add_region(region_of_pages(64))
    first, second = heap.sections
    assert heap.alloc_pages(32).section is second
    blocks = [heap.alloc_pages(1) for _ in range(17)]
    assert [block.section for block in blocks] == [first] * 16 + [second]
    blocks[3].free()
    assert heap.alloc_pages(1).section is first


def test_objects_come_from_the_second_section_when_the_first_is_full(make):
    heap = make(region_of_pages(2))
    second = heap.add_region(region_of_pages(64))
    addresses = [heap.malloc(1024) for _ in range(20)]
    assert heap.section_of(addresses[-1]) is second
    assert len(set(addresses)) == 20


# --- low memory ---

LIMIT = 4 * GIB


def test_memory_is_low_where_physical_addresses_say_so(make):
    heap = make(region_of_pages(64), phys=0)
    block = heap.alloc_pages_lowmem(3)
    assert (block.size, block.usable_size) == (3 * PAGE, 4 * PAGE)


def test_memory_is_where_it_is_without_a_translation(make):
    heap = make(region_of_pages(64))
    low = heap.sections[0].start + heap.sections[0].size <= LIMIT
    if low:
        heap.alloc_pages_lowmem(1)
    else:
        with unchanged(heap), pytest.raises(bsa.OutOfMemoryError):
            heap.alloc_pages_lowmem(1)


@pytest.mark.parametrize("pages", [1, 2, 4])
def test_low_memory_ends_at_4_gib_and_not_before(make, pages):
    """The last page of 16 that ends at 4 GiB is low, the next one is not."""
    memory = region_of_pages(64)
    with bsa.Allocator(memory) as probe:
        metadata = probe.sections[0].start - probe.sections[0].region_start
    heap = make(memory, phys=LIMIT - 16 * PAGE - metadata)
    blocks = exhaust(heap.alloc_pages_lowmem, pages)
    start = heap.sections[0].start
    assert sorted(b.address for b in blocks) == [start + i * PAGE for i in range(0, 16, pages)]
    assert heap.alloc_pages(32).address == start + 32 * PAGE


def test_phys_is_the_address_of_the_regions_first_byte(make):
    memory = region_of_pages(16)[100:]  # an unaligned start
    with bsa.Allocator(memory) as probe:
        before = probe.sections[0].start - probe.sections[0].region_start
    assert make(memory, phys=LIMIT - before - PAGE).alloc_pages_lowmem(1).size == PAGE


@pytest.mark.parametrize("phys", [LIMIT, LIMIT + 1, 1 << 63])
def test_high_memory_is_not_low(make, phys):
    heap = make(region_of_pages(64), phys=phys)
    with unchanged(heap), pytest.raises(bsa.OutOfMemoryError):
        heap.alloc_pages_lowmem(1)
    assert heap.alloc_pages(1).size == PAGE


@pytest.mark.parametrize(
    "phys, error",
    [
        (-1, bsa.InvalidParamError),
        (1 << 64, OverflowError),
        ((1 << 64) - PAGE, bsa.InvalidParamError),
        ("0", TypeError),
        (1.5, TypeError),
    ],
)
def test_what_is_no_physical_address_is_refused(heap, phys, error):
    memory = bytearray(1 * MIB)
    with pytest.raises(error):
        bsa.Allocator(memory, phys=phys)
    with unchanged(heap), pytest.raises(error):
        heap.add_region(memory, phys=phys)
    memory.append(0)


def test_each_section_has_its_own_translation(make):
    heap = make(region_of_pages(64), phys=LIMIT)
    low = heap.add_region(region_of_pages(64), phys=0)
    assert heap.alloc_pages(1).section.index == 0
    assert heap.alloc_pages_lowmem(1).section is low


def test_a_callable_translates_the_address_of_a_page(make):
    asked = []

    def phys(address):
        asked.append(address)
        return 0

    heap = make(region_of_pages(64), phys=phys)
    block = heap.alloc_pages_lowmem(2)
    assert asked == [block.address]


def test_a_callable_is_called_for_low_memory_only(make):
    def phys(address):
        raise AssertionError("called")

    heap = make(1 * MIB, phys=phys)
    heap.alloc_pages(1), heap.alloc(10), heap.malloc(10)
    heap.add_region(64 * KIB, phys=phys)
    heap.remove_region(heap.sections[1])
    heap.trim()


def test_low_pages_are_found_wherever_they_are(make):
    """Inside a free block whose start and end are high."""
    where = []
    heap = make(region_of_pages(64), phys=lambda address: 0 if address in where else LIMIT)
    start = heap.sections[0].start
    where += [start + 20 * PAGE, start + 37 * PAGE]
    assert {heap.alloc_pages_lowmem(1).detach() for _ in range(2)} == set(where)
    with unchanged(heap), pytest.raises(bsa.OutOfMemoryError):
        heap.alloc_pages_lowmem(1)


def test_a_page_in_use_is_not_low_memory(make):
    heap = make(region_of_pages(4), phys=lambda address: 0 if address == first else LIMIT)
    first = heap.sections[0].start
    assert heap.alloc_pages(1).detach() == first
    with unchanged(heap), pytest.raises(bsa.OutOfMemoryError):
        heap.alloc_pages_lowmem(1)


@pytest.mark.parametrize("align", [2 * PAGE, 16 * PAGE])
def test_low_memory_is_aligned(make, align):
    heap = make(region_of_pages(64, PAGE), phys=0)
    assert heap.alloc_pages_lowmem(1, align).address % align == 0


def test_the_limit_holds_for_low_memory(make):
    heap = make(region_of_pages(64), phys=0, limit=2 * PAGE)
    kept = heap.alloc_pages_lowmem(2)
    with unchanged(heap), pytest.raises(bsa.OutOfMemoryError):
        heap.alloc_pages_lowmem(1)
    del kept


def test_what_a_translation_raises_propagates(make):
    def phys(address):
        raise KeyError("mine")

    heap = make(region_of_pages(64), phys=phys)
    calls = []
    heap.on_oom = lambda allocator, size: calls.append(size)
    with unchanged(heap), pytest.raises(KeyError, match="mine"):
        heap.alloc_pages_lowmem(1)
    assert calls == []


@pytest.mark.parametrize(
    "physical, error",
    [
        (-1, bsa.InvalidParamError),
        (1 << 64, OverflowError),
        ("0", TypeError),
        (None, TypeError),
        (1.0, TypeError),
    ],
)
def test_a_translation_to_what_is_no_address_is_refused(make, physical, error):
    heap = make(region_of_pages(64), phys=lambda address: physical)
    with unchanged(heap), pytest.raises(error):
        heap.alloc_pages_lowmem(1)


def test_a_physical_address_near_the_end_of_64_bits_is_high(make):
    heap = make(region_of_pages(64), phys=lambda address: (1 << 64) - 1)
    with unchanged(heap), pytest.raises(bsa.OutOfMemoryError):
        heap.alloc_pages_lowmem(1)


def test_a_translation_may_not_close_the_allocator(make):
    heap = make(region_of_pages(64), phys=lambda address: heap.close())
    with unchanged(heap), pytest.raises(bsa.InUseError):
        heap.alloc_pages_lowmem(1)
    assert not heap.closed


def test_a_translation_may_not_remove_a_region(make):
    heap = make(region_of_pages(64), phys=lambda address: heap.remove_region(heap.sections[0]))
    with unchanged(heap), pytest.raises(bsa.InUseError):
        heap.alloc_pages_lowmem(1)


def test_a_translation_may_take_the_very_page(make):
    kept = []

    def phys(address):
        if not kept:
            kept.append(heap.alloc_pages(1))
        return 0

    heap = make(region_of_pages(4), phys=phys)
    block = heap.alloc_pages_lowmem(1)
    assert block.address != kept[0].address
    assert len(heap) == 2


def test_a_translation_may_take_all_pages(make):
    kept = []

    def phys(address):
        kept.extend(exhaust(heap.alloc_pages, 1))
        return 0

    heap = make(region_of_pages(64), phys=phys)
    with pytest.raises(bsa.OutOfMemoryError):
        heap.alloc_pages_lowmem(1)
    assert len(kept) == 64


def test_a_translation_may_free_and_trim(make):
    heap = make(region_of_pages(64), phys=lambda address: act() or 0)
    blocks = [heap.alloc_pages(1) for _ in range(10)]

    def act():
        if blocks:
            blocks.pop().free()
        heap.trim()
        heap.check()

    assert heap.alloc_pages_lowmem(16).usable_size == 16 * PAGE


def test_a_translation_may_add_a_region(make):
    def phys(address):
        if len(heap.sections) < 3:
            heap.add_region(region_of_pages(16), phys=0)
        return LIMIT

    heap = make(region_of_pages(64), phys=phys)
    assert heap.alloc_pages_lowmem(1).section.index > 0


def test_a_translation_may_ask_for_low_memory_itself(make):
    inner = []

    def phys(address):
        if not inner:
            inner.append(None)
            inner[0] = heap.alloc_pages_lowmem(1)
        return 0

    heap = make(region_of_pages(64), phys=phys)
    assert heap.alloc_pages_lowmem(1).address != inner[0].address


# --- giving slabs and pages back ---


def test_trim_returns_the_number_of_pages_it_freed(heap):
    addresses = [heap.malloc(size) for size in heap.size_classes]
    pages = sum(slab.nbytes for slab in heap.slabs()) // PAGE
    assert heap.trim() == 0
    heap.free_many(addresses)
    before = heap.free_pages
    assert heap.trim() == heap.free_pages - before == heap.total_pages - before
    assert pages >= heap.total_pages - before > 0
    assert heap.trim() == 0


def test_trim_drains_what_other_slots_freed(heap):
    with bsa.cpu(0):
        addresses = [heap.malloc(64) for _ in range(1000)]
    with bsa.cpu(1):
        heap.free_many(addresses)
        assert heap.trim() > 0
    assert heap.free_pages == heap.total_pages


def test_cached_slabs_are_given_back_before_pages_run_out(make):
    heap = make(region_of_pages(64))
    heap.free_many(heap.malloc(size) for size in heap.size_classes[:8])
    assert heap.free_pages < 64
    assert heap.alloc_pages(64).size == 64 * PAGE


def test_what_other_slots_freed_is_drained_before_pages_run_out(make):
    heap = make(region_of_pages(64))
    with bsa.cpu(0):
        addresses = exhaust(heap.malloc, 64)
    with bsa.cpu(1):
        heap.free_many(addresses)
        assert heap.alloc_pages(64).size == 64 * PAGE


def test_an_object_is_no_page_block_and_the_error_does_not_deny_that_it_is_there(heap):
    first, second = heap.malloc(10), heap.malloc(10)
    for address in (first, second):
        expected = "starts no page" if address % heap.page_size else "no live allocation starts"
        with unchanged(heap), pytest.raises(bsa.AllocError, match=expected):
            heap.dealloc_pages(address, 1)
