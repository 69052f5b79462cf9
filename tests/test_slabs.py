"""Slabs: small objects, slots, remote frees, seen through the Python interface."""

import ctypes

import pytest

import bsa
from helpers import KIB, MIB, exhaust, peek, poke, region_of_pages, unchanged

PAGE = 4096


def fill_slab(heap, size):
    """Allocate objects until the slab of the first one is full; their addresses."""
    addresses = [heap.malloc(size)]
    while heap.slab_of(addresses[0]).free_count:
        addresses.append(heap.malloc(size))
    return addresses


# --- classes ---


def test_classes_ascend_in_multiples_of_16_after_the_first(heap):
    classes = heap.size_classes
    assert classes[:5] == (8, 16, 32, 48, 64)
    assert list(classes) == sorted(set(classes))
    assert all(size % 16 == 0 for size in classes[1:])


def test_the_powers_of_two_are_among_the_classes(heap):
    assert set(heap.size_classes) >= {8, 16, 32, 64, 128, 256, 512, 1024, 2048}


@pytest.mark.parametrize("page_size", [256 << shift for shift in range(14)])
def test_classes_reach_to_half_a_page_or_32_kib(make, page_size):
    heap = make(64 * page_size, page_size=page_size)
    assert heap.size_classes[-1] == min(page_size // 2, 32 * KIB)


def test_there_are_at_least_four_classes_per_doubling(make):
    classes = make(8 * MIB, page_size=64 * KIB).size_classes
    for exponent in range(6, 15):
        low, high = 1 << exponent, 2 << exponent
        assert len([size for size in classes if low < size <= high]) >= 4


def test_rounding_wastes_less_than_a_fifth_from_64_bytes_up(make):
    classes = make(8 * MIB, page_size=64 * KIB).size_classes
    for smaller, larger in zip(classes, classes[1:]):
        if smaller >= 64:
            asked = smaller + 1
            assert (larger - asked) / larger < 0.2


def test_a_request_takes_the_smallest_class_that_holds_it(make):
    heap = make(8 * MIB)
    for size in range(0, heap.size_classes[-1] + 1, 7):
        expected = next(c for c in heap.size_classes if c >= size)
        with heap.alloc(size) as block:
            assert block.usable_size == expected


@pytest.mark.parametrize("align", [8, 16, 32, 64, 128, 256, 512, 1024, 2048])
@pytest.mark.parametrize("size", [1, 24, 100, 600, 1100])
def test_an_aligned_request_takes_the_smallest_class_whose_objects_are_aligned(heap, size, align):
    expected = next(c for c in heap.size_classes if c >= size and c % align == 0)
    addresses = [heap.malloc(size, align) for _ in range(20)]
    assert {heap.usable_size(address) for address in addresses} == {expected}
    assert all(address % align == 0 for address in addresses)


def test_larger_sizes_and_alignments_are_served_in_pages(heap):
    half = heap.page_size // 2
    assert heap.slab_of(heap.malloc(half)) is not None
    for address in (heap.malloc(half + 1), heap.malloc(1, heap.page_size)):
        assert heap.slab_of(address) is None
        assert heap.page_state(address) == "block"


# --- states ---


def test_a_slab_is_a_block_of_pages_cut_into_equal_objects(heap):
    for size in heap.size_classes:
        slab = heap.slab_of(heap.malloc(size))
        assert slab.size == size
        assert slab.nbytes % PAGE == 0 and slab.base % PAGE == 0
        assert slab.capacity * size <= slab.nbytes
        assert slab.free_count == slab.capacity - 1
        assert slab.state == "current"


def test_objects_of_a_class_share_a_slab(heap):
    addresses = [heap.malloc(64) for _ in range(10)]
    (slab,) = heap.slabs(64)
    assert sorted(addresses) == list(slab.objects())
    assert slab.free_count == slab.capacity - 10


def test_different_classes_never_share_a_slab(heap):
    bases = {heap.slab_of(heap.malloc(size)).base for size in heap.size_classes}
    assert len(bases) == len(heap.size_classes)


def test_different_slots_never_share_a_slab(heap):
    slabs = []
    for number in (0, 1):
        with bsa.cpu(number):
            slabs.append(heap.slab_of(heap.malloc(64)))
    assert [slab.cpu for slab in slabs] == [0, 1]
    assert slabs[0].base != slabs[1].base


def test_a_slab_without_free_objects_is_full(heap):
    with bsa.cpu(0):
        addresses = fill_slab(heap, 64)
        extra = heap.malloc(64)
    slab = heap.slab_of(addresses[0])
    assert (slab.state, slab.free_count, len(slab.objects())) == ("full", 0, slab.capacity)
    assert heap.slab_of(extra).base != slab.base


def test_a_full_slab_becomes_partial_and_is_used_again(heap):
    with bsa.cpu(0):
        first = fill_slab(heap, 64)
        second = heap.malloc(64)
        heap.free(first[5])
        assert heap.slab_of(first[0]).state == "partial"
        got = [heap.malloc(64) for _ in range(heap.slab_of(second).free_count + 1)]
        assert first[5] in got


def test_freed_objects_are_handed_out_again(heap):
    with bsa.cpu(0):
        addresses = [heap.malloc(64) for _ in range(50)]
        freed = addresses[10:20]
        heap.free_many(freed)
        assert {heap.malloc(64) for _ in range(10)} == set(freed)


def test_the_first_empty_slab_is_kept(heap):
    address = heap.malloc(64)
    pages = heap.free_pages
    heap.free(address)
    assert heap.free_pages == pages
    assert heap.slab_of(address).free_count == heap.slab_of(address).capacity
    assert heap.allocated_bytes == heap.slab_of(address).nbytes
    assert heap.malloc(64) == address


def test_a_further_empty_slab_goes_back_at_once(heap):
    with bsa.cpu(0):
        first = fill_slab(heap, 64)
        second = fill_slab(heap, 64)
        third = heap.malloc(64)
        heap.free_many(first)
        kept = heap.free_pages
        heap.free_many(second)
        assert heap.free_pages > kept
        states = [heap.page_state(a[0]) for a in (first, second)]
        assert sorted(states) == ["empty_slab", "free"]
        heap.free(third)
    assert len(heap.slabs(64)) <= 2


def test_alternating_at_the_edge_of_a_slab_takes_no_new_pages(heap):
    with bsa.cpu(0):
        fill_slab(heap, 64)
        heap.free(heap.malloc(64))
        pages = heap.free_pages
        for _ in range(100):
            heap.free(heap.malloc(64))
            assert heap.free_pages == pages


def test_each_class_and_slot_keeps_one_empty_slab_at_most(heap):
    for number in (0, 1):
        with bsa.cpu(number):
            heap.free_many(heap.malloc_many(5000, 64))
            heap.free_many(heap.malloc_many(500, 1024))
    empty = [slab for slab in heap.slabs() if slab.free_count == slab.capacity]
    assert len(empty) <= 4
    assert len({(slab.size, slab.cpu) for slab in empty}) == len(empty) == len(heap.slabs())


# --- wrong frees ---


@pytest.mark.parametrize("size", [8, 16, 64, 320, 2048])
def test_an_object_cannot_be_freed_twice(heap, size):
    address = heap.malloc(size)
    heap.free(address)
    with unchanged(heap), pytest.raises(bsa.NotAllocatedError):
        heap.free(address)


@pytest.mark.parametrize("size", [16, 64, 320, 2048])
def test_an_address_between_two_objects_is_invalid(heap, size):
    address = heap.malloc(size)
    for offset in (1, 8, size - 1):
        with unchanged(heap), pytest.raises(bsa.InvalidParamError):
            heap.free(address + offset)


def test_an_object_never_handed_out_cannot_be_freed(heap):
    address = heap.malloc(64)
    with unchanged(heap), pytest.raises(bsa.NotAllocatedError):
        heap.free(address + 64)


def test_the_unused_tail_of_a_slab_is_invalid(heap):
    slab = next(
        slab
        for slab in (heap.slab_of(heap.malloc(size)) for size in heap.size_classes)
        if slab.nbytes - slab.capacity * slab.stride >= 16
    )
    for address in (slab.base + slab.capacity * slab.stride, slab.base + slab.nbytes - 8):
        with unchanged(heap), pytest.raises(bsa.InvalidParamError):
            heap.free(address)


@pytest.mark.parametrize("first, second", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_double_free_is_refused_from_any_slot(heap, first, second):
    with bsa.cpu(0):
        address = heap.malloc(64)
    with bsa.cpu(first):
        heap.free(address)
    with bsa.cpu(second), unchanged(heap), pytest.raises(bsa.NotAllocatedError):
        heap.free(address)


def test_a_double_free_is_refused_after_draining_too(heap):
    with bsa.cpu(0):
        addresses = fill_slab(heap, 64)
    with bsa.cpu(1):
        heap.free(addresses[3])
    with bsa.cpu(0):
        other = heap.malloc(64)
        assert other == addresses[3]  # drained, and handed out
        heap.free(other)
    with bsa.cpu(1), unchanged(heap), pytest.raises(bsa.NotAllocatedError):
        heap.free(addresses[3])


def test_what_a_program_writes_into_objects_misleads_nobody(heap):
    """Objects that look like metadata, before and after they are freed."""
    with bsa.cpu(0):
        addresses = heap.malloc_many(300, 64).tolist()
        pages = heap.malloc(PAGE)
        poke(pages, peek(heap.sections[0].region_start, PAGE))
        forged = peek(heap.slab_of(addresses[0]).base, 64)
        for address in addresses:
            poke(address, forged)
    with bsa.cpu(1):
        heap.free_many(addresses[::2])
        for address in addresses[::2]:
            poke(address, b"\xff" * 64)
    for address in (pages + 64, pages + 1024):
        with unchanged(heap), pytest.raises((bsa.InvalidParamError, bsa.NotAllocatedError)):
            heap.free(address)
    with bsa.cpu(0):
        again = heap.malloc_many(500, 64).tolist()
        assert not set(again) & set(addresses[1::2])
        assert len(set(again)) == 500
    heap.check()


# --- remote frees ---


def test_frees_from_another_slot_are_counted_until_they_are_drained(heap):
    with bsa.cpu(0):
        addresses = [heap.malloc(64) for _ in range(10)]
    before = heap.slab_of(addresses[0])
    with bsa.cpu(1):
        for count, address in enumerate(addresses[:5], 1):
            heap.free(address)
            slab = heap.slab_of(address)
            assert slab.remote_free_count == count
            assert slab.free_count == before.free_count
    assert len(heap) == 5
    assert slab.objects() == tuple(sorted(addresses[5:]))
    heap.trim()
    slab = heap.slab_of(addresses[9])
    assert (slab.remote_free_count, slab.free_count) == (0, before.free_count + 5)


def test_an_object_freed_elsewhere_is_not_live(heap):
    with bsa.cpu(0):
        address = heap.malloc(64)
    with bsa.cpu(1):
        heap.free(address)
    assert address not in heap
    assert list(heap.walk()) == []
    assert heap.stats().current_bytes == 0


def test_the_owner_uses_again_what_others_freed(heap):
    with bsa.cpu(0):
        addresses = fill_slab(heap, 64)
    with bsa.cpu(1):
        heap.free_many(addresses[:20])
        assert not set(heap.malloc_many(20, 64)) & set(addresses)
    with bsa.cpu(0):
        assert {heap.malloc(64) for _ in range(20)} == set(addresses[:20])


def test_a_slab_that_was_full_is_found_again_by_its_owner(heap):
    with bsa.cpu(0):
        slabs = [fill_slab(heap, 64)]
        for _ in range(10):
            slabs.append(fill_slab(heap, 64))
    with bsa.cpu(1):
        for addresses in slabs:
            heap.free(addresses[7])
    pages = heap.free_pages
    with bsa.cpu(0):
        got = {heap.malloc(64) for _ in range(11)}
    assert got == {addresses[7] for addresses in slabs}
    assert heap.free_pages == pages


@pytest.mark.parametrize("size", [16, 64, 1024])
def test_memory_stays_bounded_when_one_slot_allocates_and_another_frees(heap, size):
    def round_trip():
        with bsa.cpu(0):
            addresses = heap.malloc_many(3000, size)
        with bsa.cpu(1):
            heap.free_many(addresses)
        return heap.total_pages - heap.free_pages

    first = round_trip()
    assert max(round_trip() for _ in range(30)) <= 2 * first


def test_slots_that_free_each_others_objects_lose_none(heap):
    live = {0: [], 1: []}
    for step in range(4000):
        owner, other = step % 2, 1 - step % 2
        with bsa.cpu(owner):
            live[owner].append(heap.malloc(48))
            if live[other] and step % 3:
                heap.free(live[other].pop(step * 7 % len(live[other])))
    everything = live[0] + live[1]
    assert len(set(everything)) == len(everything) == len(heap)
    heap.free_many(everything)
    heap.trim()
    assert heap.free_pages == heap.total_pages


def test_page_blocks_have_no_owner(heap):
    with bsa.cpu(0):
        address = heap.malloc(10_000)
    with bsa.cpu(1):
        heap.free(address)
    assert heap.free_pages == heap.total_pages


# --- numbers ---


def test_allocated_bytes_count_whole_slabs(heap):
    addresses = [heap.malloc(8), heap.malloc(2048)]
    assert heap.allocated_bytes == sum(slab.nbytes for slab in heap.slabs())
    assert heap.allocated_bytes == heap.managed_bytes - heap.free_pages * PAGE
    heap.free_many(addresses)
    assert heap.allocated_bytes == sum(slab.nbytes for slab in heap.slabs())  # kept, though empty
    heap.trim()
    assert heap.allocated_bytes == 0


# --- scarcity ---


def test_objects_can_use_every_page(make):
    heap = make(region_of_pages(64))
    exhaust(heap.malloc, 2048)
    exhaust(heap.malloc, 8)
    assert heap.free_pages == 0


def test_an_object_fits_where_only_a_slab_smaller_than_usual_does(make):
    heap = make(region_of_pages(512))
    usual = heap.slab_of(heap.malloc(2048)).nbytes
    assert usual > PAGE
    singles = [heap.alloc_pages(1).detach() for _ in range(heap.free_pages)]
    heap.free(singles[10])
    exhaust(heap.malloc, 2048)
    assert heap.free_pages == 0
    assert heap.slab_of(singles[10]).nbytes == PAGE


def test_an_empty_slab_of_another_class_makes_room(make):
    heap = make(region_of_pages(4))
    for size in (16, 64, 2048, 500, 8) * 5:
        addresses = exhaust(heap.malloc, size)
        assert addresses
        heap.free_many(addresses)


def test_an_empty_slab_of_another_slot_makes_room(make):
    heap = make(region_of_pages(4))
    for number in (0, 1, 0, 1):
        with bsa.cpu(number):
            addresses = exhaust(heap.malloc, 64)
            assert len(addresses) >= 4 * PAGE // 64 - 1
            heap.free_many(addresses)


def test_tiny_heaps_serve_objects_of_every_class(make):
    for pages in (1, 2, 3, 5):
        heap = make(region_of_pages(pages))
        for size in heap.size_classes:
            heap.free(heap.malloc(size))


def test_objects_of_the_smallest_pages_work(make):
    heap = make(64 * KIB, page_size=256)
    addresses = [heap.malloc(size) for size in (1, 8, 16, 100, 128, 129, 300) * 20]
    for address in addresses:
        ctypes.memset(address, 0xFF, heap.usable_size(address))
    heap.check()
    heap.free_many(addresses)
    heap.trim()
    assert heap.free_pages == heap.total_pages
