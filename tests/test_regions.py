"""Regions under management: added, listed, removed."""

import pytest

import bsa
from helpers import KIB, MIB, aligned, exhaust, unchanged

# --- regions ---


def test_sections_are_listed_in_the_order_of_registration(make):
    memory = aligned(4 * MIB)
    heap = make(memory[2 * MIB :])
    added = [heap.add_region(memory[: 1 * MIB]), heap.add_region(1 * MIB)]
    assert list(heap.sections[1:]) == added
    assert [section.index for section in heap.sections] == [0, 1, 2]


def test_a_section_is_always_the_same_object(heap):
    section = heap.sections[0]
    block = heap.alloc(10)
    assert heap.sections[0] is section
    assert block.section is section
    assert heap.section_of(block.address) is section


def test_sums_are_over_all_sections(heap):
    heap.add_region(1 * MIB)
    heap.malloc(100_000)
    for name in ("total_pages", "free_pages"):
        assert getattr(heap, name) == sum(getattr(s, name) for s in heap.sections)
    assert heap.managed_bytes == sum(s.size for s in heap.sections)
    assert heap.metadata_bytes == sum(s.metadata_size for s in heap.sections)
    counts = zip(*(s.free_blocks() for s in heap.sections))
    assert heap.free_blocks() == tuple(map(sum, counts))


def test_regions_can_be_added_while_the_allocator_is_in_use(heap):
    before = heap.malloc(100)
    heap.add_region(1 * MIB)
    heap.free(before)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_section_without_allocations_can_be_removed(heap, index):
    heap.add_region(1 * MIB)
    heap.add_region(2 * MIB)
    sections = list(heap.sections)
    removed = sections.pop(index)
    heap.remove_region(removed)
    assert list(heap.sections) == sections
    assert [section.index for section in sections] == [0, 1]
    assert heap.managed_bytes == sum(section.size for section in sections)


def test_all_sections_can_be_removed_and_others_added(heap):
    heap.remove_region(heap.sections[0])
    with pytest.raises(bsa.NotInitializedError):
        heap.malloc(1)
    heap.add_region(1 * MIB)
    heap.free(heap.malloc(1))


@pytest.mark.parametrize("size", [10, 10_000])
def test_a_section_with_a_live_allocation_cannot_be_removed(heap, size):
    address = heap.malloc(size)
    with unchanged(heap), pytest.raises(bsa.InUseError):
        heap.remove_region(heap.sections[0])
    heap.free(address)
    heap.remove_region(heap.sections[0])


def test_a_section_whose_objects_were_freed_from_another_slot_can_be_removed(heap):
    with bsa.cpu(0):
        addresses = [heap.malloc(64) for _ in range(1000)]
    with bsa.cpu(1):
        heap.free_many(addresses)
        heap.remove_region(heap.sections[0])
    assert heap.sections == ()


def test_a_removed_section_can_no_longer_be_used(heap):
    section = heap.add_region(1 * MIB)
    heap.remove_region(section)
    with pytest.raises(bsa.ClosedError):
        section.start
    with pytest.raises(bsa.ClosedError):
        section.page_states()
    assert "removed" in repr(section)


def test_a_section_is_removed_once_only(heap):
    section = heap.add_region(1 * MIB)
    heap.remove_region(section)
    with unchanged(heap), pytest.raises(bsa.InvalidParamError):
        heap.remove_region(section)


def test_a_section_of_another_allocator_is_not_removed(heap, make):
    other = make(1 * MIB)
    with unchanged(heap, other), pytest.raises(bsa.InvalidParamError):
        heap.remove_region(other.sections[0])


@pytest.mark.parametrize("wrong", [0, None, "x", bytearray(8192)])
def test_only_sections_can_be_removed(heap, wrong):
    with unchanged(heap), pytest.raises(TypeError):
        heap.remove_region(wrong)


def test_addresses_in_any_of_many_sections_are_found(make):
    heap = make()
    for _ in range(50):
        heap.add_region(64 * KIB)
    addresses = exhaust(heap.malloc, 8192)
    assert {heap.section_of(address).index for address in addresses} == set(range(50))
    heap.free_many(addresses)
    assert heap.free_pages == heap.total_pages
