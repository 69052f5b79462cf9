"""Allocators: making, regions, raw addresses, bulk, limits, on_oom, slots, closing."""

import contextlib
import copy
import gc
import inspect
import os
import pickle
import threading
import weakref
from array import array

import pytest

import bsa
from helpers import GIB, KIB, MIB, aligned, exhaust, in_child, peek, poke, unchanged

# --- the interface ---

SIGNATURES = {
    "add_region": "($self, buffer_or_size, /, *, phys=None)",
    "remove_region": "($self, section, /)",
    "alloc": "($self, size, align=None, *, zero=False)",
    "alloc_from": "($self, bytes_like, /)",
    "alloc_pages": "($self, count, align=None, *, exact=False)",
    "alloc_pages_lowmem": "($self, count, align=None)",
    "malloc": "($self, size, align=None, *, zero=False)",
    "realloc": "($self, addr, size, /)",
    "free": "($self, addr_or_block, /)",
    "malloc_many": "($self, count, size, align=None)",
    "free_many": "($self, addrs, /)",
    "dealloc_pages": "($self, addr, count, /)",
    "block": "($self, addr, /)",
    "usable_size": "($self, addr, /)",
    "section_of": "($self, addr, /)",
    "slab_of": "($self, addr, /)",
    "page_state": "($self, addr, /)",
    "free_blocks": "($self, /)",
    "unusable_index": "($self, order, /)",
    "extfrag_index": "($self, order, /)",
    "stats": "($self, /)",
    "reset_peak": "($self, /)",
    "slabs": "($self, size=None)",
    "walk": "($self, /)",
    "check": "($self, /)",
    "trim": "($self, /)",
    "close": "($self, /)",
}
PROPERTIES = """sections page_size cpus total_pages free_pages managed_bytes allocated_bytes requested_bytes
metadata_bytes largest_free size_classes limit on_oom closed""".split()


@pytest.mark.parametrize("name", SIGNATURES)
def test_each_method_has_a_docstring_and_a_signature(name):
    method = getattr(bsa.Allocator, name)
    assert method.__text_signature__ == SIGNATURES[name]
    assert len(method.__doc__) > 20


@pytest.mark.parametrize("name", PROPERTIES)
def test_each_property_has_a_docstring(name):
    assert getattr(bsa.Allocator, name).__doc__


def test_the_constructor_has_the_documented_signature():
    assert str(inspect.signature(bsa.Allocator)) == (
        "(buffer=None, *, page_size=4096, cpus=None, phys=None, limit=None, on_oom=None)"
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda heap: heap.alloc(),
        lambda heap: heap.alloc(1, 8, True),
        lambda heap: heap.alloc(1, size=1),
        lambda heap: heap.alloc(1, wrong=1),
        lambda heap: heap.alloc_pages(1, None, True),
        lambda heap: heap.malloc(),
        lambda heap: heap.realloc(1),
        lambda heap: heap.dealloc_pages(1),
        lambda heap: heap.dealloc_pages(1, 2, 3),
        lambda heap: heap.malloc_many(1),
        lambda heap: heap.add_region(),
        lambda heap: heap.slabs(1, 2),
    ],
)
def test_wrong_arguments_are_a_type_error(heap, call):
    with unchanged(heap), pytest.raises(TypeError):
        call(heap)


# --- making ---


def test_an_allocator_over_a_size_manages_so_many_bytes_of_its_own(make):
    heap = make(1 * MIB)
    (section,) = heap.sections
    assert section.region_size == 1 * MIB
    assert section.buffer is None


def test_an_allocator_without_a_buffer_has_no_section(make):
    heap = make()
    assert heap.sections == ()
    assert (heap.total_pages, heap.free_pages, heap.managed_bytes) == (0, 0, 0)
    assert (heap.allocated_bytes, heap.metadata_bytes, heap.largest_free) == (0, 0, 0)
    assert len(heap) == 0 and list(heap.walk()) == [] and heap.slabs() == []


@pytest.mark.parametrize(
    "call",
    [
        lambda heap: heap.alloc(1),
        lambda heap: heap.alloc_from(b"x"),
        lambda heap: heap.alloc_pages(1),
        lambda heap: heap.alloc_pages_lowmem(1),
        lambda heap: heap.malloc(1),
        lambda heap: heap.malloc_many(2, 1),
        lambda heap: heap.realloc(4096, 1),
        lambda heap: heap.free(4096),
        lambda heap: heap.free_many([4096]),
        lambda heap: heap.dealloc_pages(4096, 1),
        lambda heap: heap.block(4096),
        lambda heap: heap.usable_size(4096),
        lambda heap: heap.section_of(4096),
        lambda heap: heap.slab_of(4096),
        lambda heap: heap.page_state(4096),
    ],
)
def test_without_a_section_requests_are_not_initialized(make, call):
    heap = make()
    with unchanged(heap), pytest.raises(bsa.NotInitializedError):
        call(heap)


def test_no_address_is_in_an_allocator_without_a_section(make):
    assert 4096 not in make()


def test_an_allocator_without_a_section_works_once_it_gets_one(make):
    heap = make()
    section = heap.add_region(1 * MIB)
    with heap.alloc(100) as block:
        assert block.section is section


def test_an_object_with_index_is_a_size(make):
    class Size:
        def __index__(self):
            return 1 * MIB

    assert make(Size()).sections[0].region_size == 1 * MIB


def test_a_numpy_integer_is_a_size(make):
    np = pytest.importorskip("numpy")
    for number in (np.int64(1 * MIB), np.uint32(1 * MIB)):
        assert make(number).sections[0].region_size == 1 * MIB


@pytest.mark.parametrize("page_size", [256 << shift for shift in range(14)])
def test_any_power_of_two_from_256_to_2_mib_is_a_page_size(make, page_size):
    heap = make(64 * page_size, page_size=page_size)
    assert heap.page_size == page_size
    assert heap.managed_bytes == heap.total_pages * page_size
    with heap.alloc_pages(2) as block:
        assert block.usable_size == 2 * page_size


@pytest.mark.parametrize("page_size", [0, 1, 128, 255, 257, 3000, 4095, 4 * MIB, 1 << 63])
def test_other_page_sizes_are_invalid(page_size):
    with pytest.raises(bsa.InvalidParamError):
        bsa.Allocator(1 * MIB, page_size=page_size)


@pytest.mark.parametrize("cpus", [1, 2, 7, 65535])
def test_cpus_is_the_number_of_slots(cpus):
    with bsa.Allocator(1 * MIB, cpus=cpus) as heap:
        assert heap.cpus == cpus


@pytest.mark.parametrize("cpus", [0, 65536, 1 << 32])
def test_other_numbers_of_slots_are_invalid(cpus):
    with pytest.raises(bsa.InvalidParamError):
        bsa.Allocator(1 * MIB, cpus=cpus)


def test_there_is_a_slot_for_each_processor_by_default():
    with bsa.Allocator(1 * MIB) as heap:
        assert 1 <= heap.cpus <= os.cpu_count()


@pytest.mark.parametrize("name", ["page_size", "cpus", "limit"])
@pytest.mark.parametrize(
    "value, error",
    [
        (-1, bsa.InvalidParamError),
        (1 << 64, OverflowError),
        ("1", TypeError),
        (1.0, TypeError),
    ],
)
def test_options_that_are_no_64_bit_numbers_are_refused(name, value, error):
    with pytest.raises(error):
        bsa.Allocator(1 * MIB, **{name: value})


@pytest.mark.parametrize("options", [{"on_oom": 1}, {"phys": "x"}, {"phys": 1.5}])
def test_callbacks_that_cannot_be_called_are_a_type_error(options):
    with pytest.raises(TypeError):
        bsa.Allocator(1 * MIB, **options)


def test_phys_is_checked_without_a_buffer_too():
    with pytest.raises(TypeError):
        bsa.Allocator(None, phys="x")


def test_subclasses_work():
    class Heap(bsa.Allocator):
        def __init__(self, size, *, name):
            self.name = name

        def __new__(cls, size, *, name):
            return super().__new__(cls, size)

    with Heap(1 * MIB, name="mine") as heap:
        assert heap.name == "mine"
        assert heap.alloc(10).allocator is heap


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="no sysconf")
def test_a_huge_private_mapping_takes_no_memory_until_it_is_used():
    with bsa.Allocator(64 * GIB, cpus=1) as heap:
        assert heap.managed_bytes > 62 * GIB
        assert heap.largest_free == 4 * GIB
        heap.check()
        resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
        assert resident < 2 * GIB


@pytest.mark.parametrize("name", ["Section", "Slab", "Block"])
def test_other_objects_are_not_made_by_calling_their_types(name):
    with pytest.raises(TypeError):
        getattr(bsa, name)()


@pytest.mark.parametrize("name", ["Section", "Slab", "Block"])
def test_types_of_other_objects_are_final(name):
    with pytest.raises(TypeError):
        type("Derived", (getattr(bsa, name),), {})


# --- identity, truth, references ---


def objects_of(heap):
    block = heap.alloc(10)
    return {
        "Allocator": heap,
        "Section": heap.sections[0],
        "Slab": heap.slabs()[0],
        "Block": block,
        "Walk": heap.walk(),
    }


@pytest.mark.parametrize("name", ["Allocator", "Section", "Slab", "Block", "Walk"])
@pytest.mark.parametrize(
    "operation", [copy.copy, copy.deepcopy] + [lambda o, p=p: pickle.dumps(o, p) for p in range(6)]
)
def test_nothing_that_stands_for_memory_is_copied_or_pickled(heap, name, operation):
    with pytest.raises(TypeError):
        operation(objects_of(heap)[name])


def test_an_allocator_can_be_referenced_weakly():
    heap = bsa.Allocator(1 * MIB)
    reference = weakref.ref(heap)
    assert reference() is heap
    del heap
    assert reference() is None


def test_an_allocator_is_true_even_if_empty_or_closed(heap):
    assert heap
    heap.close()
    assert heap


def test_len_is_the_number_of_live_allocations(heap):
    addresses = [heap.malloc(10), heap.malloc(10_000)]
    block = heap.alloc(100)
    assert len(heap) == 3
    heap.free(addresses[0])
    block.free()
    assert len(heap) == 1


def test_the_start_of_a_live_allocation_is_in_the_allocator(heap):
    block = heap.alloc(100)
    addresses = [heap.malloc(10), heap.malloc(10_000), block.address]
    assert all(address in heap for address in addresses)


def test_no_other_object_is_in_the_allocator(heap):
    small, large = heap.malloc(64), heap.malloc(10_000)
    inside = [small + 1, small + 16, large + 1, large + 4096]
    outside = [0, heap.sections[0].start - 1, heap.sections[0].region_start, 1 << 63, (1 << 64) - 1]
    for other in [*inside, *outside, -1, 1 << 64, "x", None, 1.0, heap]:
        assert other not in heap


def test_a_freed_address_is_not_in_the_allocator(heap):
    for size in (10, 10_000):
        address = heap.malloc(size)
        heap.free(address)
        assert address not in heap


def collected(make_cycle):
    """Whether the objects that make_cycle returns go away once nobody refers to them."""
    references = [weakref.ref(thing) for thing in make_cycle()]
    gc.collect()
    return [reference() for reference in references] == [None] * len(references)


def test_callbacks_do_not_keep_a_dead_allocator_alive():
    def make_cycle():
        heap = bsa.Allocator(
            1 * MIB, on_oom=lambda allocator, size: heap, phys=lambda address: heap
        )
        return [heap]

    assert collected(make_cycle)


def test_a_cycle_through_on_oom_blocks_and_their_allocator_is_collected():
    class Cache(list):
        def make_room(self, allocator, size):
            return False

    def make_cycle():
        cache = Cache()
        heap = bsa.Allocator(1 * MIB, on_oom=cache.make_room)
        cache.extend(heap.alloc(1000) for _ in range(20))
        cache.append(heap.sections[0])
        return [heap, cache]

    assert collected(make_cycle)


def test_a_cycle_through_a_buffer_is_collected():
    class Memory(bytearray):
        pass

    def make_cycle():
        memory = Memory(1 * MIB)
        memory.heap = bsa.Allocator(memory)
        return [memory.heap]

    assert collected(make_cycle)


def test_a_cycle_through_a_buffer_and_an_exported_block_is_collected():
    class Memory(bytearray):
        pass

    def make_cycle():
        memory = Memory(1 * MIB)
        memory.heap = bsa.Allocator(memory)
        memory.block = memory.heap.alloc(100)
        memoryview(memory.block).release()
        return [memory.heap]

    assert collected(make_cycle)


def test_a_cycle_through_nested_allocators_is_collected():
    def make_cycle():
        outer = bsa.Allocator(1 * MIB)
        inner = bsa.Allocator(outer.alloc(100_000))
        outer.on_oom = lambda allocator, size: inner
        return [outer, inner]

    assert collected(make_cycle)


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


# --- raw addresses ---


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 64, 100, 2048, 2049, 4096, 5000, 100_000, MIB])
def test_malloc_gives_memory_of_at_least_the_size_asked_for(heap, size):
    address = heap.malloc(size)
    assert heap.usable_size(address) >= max(size, 1)
    poke(address, b"\xa5" * size)
    assert peek(address, size) == b"\xa5" * size
    heap.free(address)


@pytest.mark.parametrize("size", [0, 1, 8, 15, 16, 17, 24, 40, 100, 1000, 5000])
def test_memory_is_aligned_to_16_bytes_from_16_bytes_up(heap, size):
    for address in [heap.malloc(size) for _ in range(20)]:
        assert address % (16 if size >= 16 else 8) == 0


@pytest.mark.parametrize("align", [1 << shift for shift in range(22)])
@pytest.mark.parametrize("size", [0, 1, 24, 1000, 3000, 100_000])
def test_memory_has_the_alignment_asked_for(heap, size, align):
    for address in [heap.malloc(size, align), heap.malloc(size, align)]:
        assert address % align == 0
        assert heap.usable_size(address) >= size


@pytest.mark.parametrize("align", [3, 6, 24, 4095, (1 << 63) + 1, (1 << 64) - 1])
def test_an_alignment_that_is_no_power_of_two_is_invalid(heap, align):
    for request in (heap.malloc, heap.alloc, heap.alloc_pages, heap.alloc_pages_lowmem):
        with unchanged(heap), pytest.raises(bsa.InvalidParamError):
            request(1, align)
    with unchanged(heap), pytest.raises(bsa.InvalidParamError):
        heap.malloc_many(3, 1, align)


@pytest.mark.parametrize("size", [1, 100, 3000, 2 * MIB])
def test_zeroed_memory_is_zero_even_where_the_buffer_was_not(make, size):
    heap = make(bytearray(b"\xff" * (8 * MIB)))
    address = heap.malloc(size, zero=True)
    assert not any(peek(address, heap.usable_size(address)))
    poke(address, b"\xff" * size)
    heap.free(address)
    address = heap.malloc(size, zero=True)
    assert not any(peek(address, heap.usable_size(address)))


def test_memory_handed_out_does_not_overlap(heap):
    spans = sorted(
        (address, address + heap.usable_size(address))
        for size in (1, 8, 24, 100, 3000, 5000) * 50
        for address in [heap.malloc(size)]
    )
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:]))


@pytest.mark.parametrize("old", [0, 10, 100, 2048, 5000, 100_000])
@pytest.mark.parametrize("new", [0, 10, 100, 2048, 5000, 100_000, MIB])
def test_realloc_keeps_the_contents_up_to_the_smaller_size(heap, old, new):
    data = bytes(i * 7 % 256 for i in range(old))
    address = heap.malloc(old)
    poke(address, data)
    moved = heap.realloc(address, new)
    assert heap.usable_size(moved) >= new
    assert peek(moved, min(old, new)) == data[:new]
    assert len(heap) == 1


def test_realloc_within_the_object_stays_in_place(heap):
    address = heap.malloc(100)
    assert heap.realloc(address, heap.usable_size(address)) == address


def test_realloc_of_pages_grows_into_a_free_neighbour(make):
    heap = make(aligned(4 * MIB))
    address = heap.malloc(2 * heap.page_size, 8 * heap.page_size)
    assert heap.realloc(address, 8 * heap.page_size) == address
    assert heap.usable_size(address) == 8 * heap.page_size


def test_realloc_to_nothing_shrinks_as_far_as_it_goes(heap):
    address = heap.realloc(heap.malloc(100_000), 0)
    assert heap.usable_size(address) == 8
    heap.free(address)


def test_realloc_of_address_0_finds_nothing(heap):
    with unchanged(heap), pytest.raises(bsa.NotFoundError):
        heap.realloc(0, 100)


def test_a_failed_realloc_leaves_the_old_allocation_as_it_was(make):
    heap = make(1 * MIB)
    address = heap.malloc(1000)
    poke(address, b"\x5a" * 1000)
    with unchanged(heap), pytest.raises(bsa.OutOfMemoryError):
        heap.realloc(address, 2 * MIB)
    assert peek(address, 1000) == b"\x5a" * 1000


def test_free_takes_a_block_too(heap):
    block = heap.alloc(100)
    heap.free(block)
    assert block.freed


def test_free_refuses_a_block_of_another_allocator(heap, make):
    other = make(1 * MIB)
    block = other.alloc(100)
    with unchanged(heap, other), pytest.raises(bsa.NotFoundError):
        heap.free(block)


def test_alloc_from_copies_the_bytes(heap):
    for source in (b"", b"hello", bytearray(b"x" * 5000), array("Q", [1, 2, 3])):
        block = heap.alloc_from(source)
        assert block[:] == bytes(source)
        assert block.size == len(bytes(source))


def test_alloc_from_copies_a_block_of_the_same_heap(heap):
    block = heap.alloc_from(b"hello")
    assert heap.alloc_from(block)[:] == b"hello"


@pytest.mark.parametrize(
    "wrong, error", [(5, TypeError), ("x", TypeError), (memoryview(b"abcd")[::2], BufferError)]
)
def test_alloc_from_refuses_what_gives_no_contiguous_buffer(heap, wrong, error):
    with unchanged(heap), pytest.raises(error):
        heap.alloc_from(wrong)


# --- in bulk ---


def test_malloc_many_gives_distinct_live_addresses(heap):
    addresses = heap.malloc_many(1000, 40, 16)
    assert len(set(addresses)) == 1000
    assert all(address in heap and address % 16 == 0 for address in addresses)
    assert len(heap) == 1000


def test_the_addresses_come_as_a_read_only_view_of_64_bit_numbers(heap):
    addresses = heap.malloc_many(3, 40)
    assert isinstance(addresses, memoryview)
    assert (addresses.format, addresses.itemsize, addresses.ndim) == ("Q", 8, 1)
    assert addresses.readonly


def test_the_addresses_outlive_the_allocator():
    with bsa.Allocator(1 * MIB) as heap:
        addresses = heap.malloc_many(3, 40)
    assert len(addresses.tolist()) == 3


def test_no_allocations_are_an_empty_view(heap):
    assert heap.malloc_many(0, 40).tolist() == []
    heap.free_many([])
    assert len(heap) == 0


@pytest.mark.parametrize("size", [64, 3000, 10_000])
def test_malloc_many_gives_all_or_none(make, size):
    heap = make(1 * MIB)
    heap.malloc(100)
    free = heap.free_pages
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc_many(2 * MIB // size, size)
    heap.trim()
    assert len(heap) == 1
    assert heap.free_pages == free


@pytest.mark.parametrize("count", [MIB, (1 << 32) + 1, 1 << 61, (1 << 61) + 1, (1 << 64) - 1])
def test_more_addresses_than_could_ever_fit_are_out_of_memory(make, count):
    heap = make(1 * MIB)
    with unchanged(heap), pytest.raises(bsa.OutOfMemoryError):
        heap.malloc_many(count, 64)


@pytest.mark.parametrize(
    "collect",
    [
        list,
        tuple,
        set,
        iter,
        memoryview,
        lambda view: (address for address in view),
        lambda view: array("Q", view),
        lambda view: array("q", view),
        lambda view: view[::-1],
    ],
)
def test_free_many_takes_iterables_and_buffers_of_numbers(heap, collect):
    heap.free_many(collect(heap.malloc_many(100, 40)))
    assert len(heap) == 0


def test_free_many_takes_numpy_and_ctypes_arrays(heap):
    import ctypes

    heap.free_many((ctypes.c_uint64 * 10)(*heap.malloc_many(10, 40)))
    np = pytest.importorskip("numpy")
    heap.free_many(np.array(heap.malloc_many(10, 40)))
    heap.free_many(np.array(heap.malloc_many(10, 40), dtype=np.int64)[::-1])
    assert len(heap) == 0


def test_free_many_takes_what_mixes_sizes_and_order(heap):
    addresses = [heap.malloc(size) for size in (10, 100_000, 64, 5000, 10, 2048) * 20]
    heap.free_many(addresses[::2] + addresses[1::2][::-1])
    heap.trim()
    assert heap.free_pages == heap.total_pages


@pytest.mark.parametrize(
    "wrong, error",
    [
        (lambda good: good + [good[0]], bsa.NotAllocatedError),
        (lambda good: good + [good[1] + 1], bsa.InvalidParamError),
        (lambda good: good + [0], bsa.NotFoundError),
        (lambda good: [good[-1] + 4096] + good, bsa.NotAllocatedError),
        (lambda good: good + [-1], bsa.InvalidParamError),
        (lambda good: good + [1 << 64], OverflowError),
        (lambda good: good + ["x"], TypeError),
        (lambda good: array("q", good + [-1]), bsa.InvalidParamError),
        (lambda good: array("d", good), TypeError),
        (lambda good: array("I", [1, 2]), TypeError),
        (lambda good: bytes(16), TypeError),
        (lambda good: memoryview(array("Q", good)).cast("B").cast("Q", (2, 2)), TypeError),
        (lambda good: 5, TypeError),
        (lambda good: None, TypeError),
    ],
)
def test_free_many_frees_nothing_if_anything_is_wrong(heap, wrong, error):
    good = [heap.malloc(size) for size in (64, 64, 5000, 100_000)]
    with unchanged(heap), pytest.raises(error):
        heap.free_many(wrong(good))


def test_numbers_of_foreign_byte_order_are_a_type_error(heap):
    np = pytest.importorskip("numpy")
    addresses = np.array(heap.malloc_many(10, 40))
    with unchanged(heap), pytest.raises(TypeError):
        heap.free_many(addresses.astype(addresses.dtype.newbyteorder()))


# --- the limit ---


def test_there_is_no_limit_by_default(heap):
    assert heap.limit is None


def test_allocated_bytes_never_exceed_the_limit(make):
    heap = make(4 * MIB, limit=1 * MIB)
    exhaust(heap.malloc, 10_000)
    exhaust(heap.malloc, 64)
    exhaust(heap.alloc_pages, 1)
    assert heap.allocated_bytes == 1 * MIB == heap.limit


def test_the_limit_can_be_raised_lowered_and_taken_away(heap):
    for limit in (8 * KIB, 0, (1 << 64) - 2, None):
        heap.limit = limit
        assert heap.limit == limit
    heap.free(heap.malloc(1 * MIB))


def test_a_limit_below_what_is_in_use_only_refuses_more(heap):
    address = heap.malloc(100_000)
    heap.limit = 0
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(100_000)
    heap.free(address)
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(1)


def test_a_limit_counts_whole_pages(heap):
    heap.limit = 3 * heap.page_size - 1
    heap.malloc(2 * heap.page_size)
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(heap.page_size)


def test_cached_slabs_are_given_back_before_the_limit_refuses(heap):
    heap.limit = 64 * KIB
    for size in heap.size_classes:
        heap.free(heap.malloc(size))
    heap.malloc(64 * KIB)


@pytest.mark.parametrize(
    "value, error", [(-1, bsa.InvalidParamError), (1 << 64, OverflowError), ("1", TypeError)]
)
def test_a_limit_that_is_no_number_is_refused(heap, value, error):
    heap.limit = 4 * MIB
    with pytest.raises(error):
        heap.limit = value
    assert heap.limit == 4 * MIB


@pytest.mark.parametrize("name", ["limit", "on_oom"])
def test_settable_properties_cannot_be_deleted(heap, name):
    with pytest.raises(AttributeError):
        delattr(heap, name)


# --- on_oom ---


@pytest.fixture
def full(make):
    """A heap of 1 MiB without room for 64 KiB, and the addresses that fill it."""
    heap = make(1 * MIB)
    return heap, exhaust(heap.malloc, 64 * KIB)


def test_on_oom_is_called_once_for_a_failed_request(full):
    heap, _ = full
    calls = []
    heap.on_oom = lambda *arguments: calls.append(arguments)
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(64 * KIB)
    assert calls == [(heap, 64 * KIB)]


@pytest.mark.parametrize(
    "request_, nbytes",
    [
        (lambda heap: heap.alloc(64 * KIB), 64 * KIB),
        (lambda heap: heap.alloc_from(bytes(64 * KIB)), 64 * KIB),
        (lambda heap: heap.alloc_pages(17), 17 * 4096),
        (lambda heap: heap.alloc_pages_lowmem(17), 17 * 4096),
        (lambda heap: heap.malloc(64 * KIB, 128 * KIB, zero=True), 64 * KIB),
        (lambda heap: heap.malloc_many(3, 30 * KIB), 90 * KIB),
        (lambda heap: heap.realloc(next(heap.walk())[0], 128 * KIB), 128 * KIB),
    ],
)
def test_on_oom_learns_the_bytes_of_every_kind_of_request(full, request_, nbytes):
    heap, _ = full
    calls = []
    heap.on_oom = lambda allocator, size: calls.append(size)
    with pytest.raises(bsa.OutOfMemoryError):
        request_(heap)
    assert calls == [nbytes]


def test_on_oom_is_repeated_while_it_says_try_again(full):
    heap, _ = full
    answers = iter([True, 1, "yes", [0], False])
    heap.on_oom = lambda allocator, size: next(answers)
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(64 * KIB)
    assert list(answers) == []


@pytest.mark.parametrize("no", [False, None, 0, "", []])
def test_on_oom_refuses_with_anything_false(full, no):
    heap, _ = full
    heap.on_oom = lambda allocator, size: no
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(64 * KIB)


def test_on_oom_can_make_room_by_freeing(full):
    heap, addresses = full
    heap.on_oom = lambda allocator, size: allocator.free(addresses.pop()) is None
    assert heap.malloc(64 * KIB) in heap


def test_on_oom_can_make_room_by_adding_a_region(full):
    heap, _ = full
    heap.on_oom = lambda allocator, size: allocator.add_region(1 * MIB)
    address = heap.malloc(64 * KIB)
    assert heap.section_of(address).index == 1


def test_on_oom_can_make_room_for_many_by_adding_a_region(make):
    heap = make(64 * KIB)
    heap.on_oom = lambda allocator, size: allocator.add_region(4 * MIB)
    assert len(heap.malloc_many(30_000, 64)) == 30_000


def test_on_oom_can_make_room_by_raising_the_limit(heap):
    heap.limit = 0

    def raise_limit(allocator, size):
        allocator.limit = None
        return True

    heap.on_oom = raise_limit
    assert heap.malloc(10) in heap


def test_on_oom_can_take_itself_away(full):
    heap, _ = full
    calls = []

    def once(allocator, size):
        calls.append(size)
        allocator.on_oom = None
        return True

    heap.on_oom = once
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(64 * KIB)
    assert calls == [64 * KIB]


@pytest.mark.parametrize("answer", [True, False])
def test_on_oom_can_close_the_allocator(full, answer):
    heap, _ = full

    def close(allocator, size):
        allocator.close()
        return answer

    heap.on_oom = close
    with pytest.raises(bsa.ClosedError):
        heap.malloc(64 * KIB)
    assert heap.closed


def test_on_oom_can_close_the_allocator_during_a_resize(full):
    heap, addresses = full
    heap.free(addresses.pop())
    block = heap.alloc(1000)
    heap.on_oom = lambda allocator, size: allocator.close()
    with pytest.raises(bsa.ClosedError):
        block.resize(512 * KIB)
    assert block.freed


def test_what_on_oom_raises_propagates(full):
    heap, _ = full

    def fail(allocator, size):
        raise KeyError("mine")

    heap.on_oom = fail
    with unchanged(heap), pytest.raises(KeyError, match="mine"):
        heap.malloc(64 * KIB)


def test_what_the_answer_of_on_oom_raises_propagates(full):
    heap, _ = full

    class Neither:
        def __bool__(self):
            raise KeyError("mine")

    heap.on_oom = lambda allocator, size: Neither()
    with unchanged(heap), pytest.raises(KeyError, match="mine"):
        heap.malloc(64 * KIB)


def test_on_oom_is_not_called_from_within_itself(full):
    heap, _ = full
    depths = []

    def recurse(allocator, size):
        depths.append(size)
        with pytest.raises(bsa.OutOfMemoryError):
            allocator.malloc(128 * KIB)
        return False

    heap.on_oom = recurse
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(64 * KIB)
    assert depths == [64 * KIB]


def test_within_on_oom_that_of_another_allocator_is_called(full, make):
    heap, _ = full
    other = make(64 * KIB)
    calls = []
    other.on_oom = lambda allocator, size: calls.append("other")

    def use_other(allocator, size):
        calls.append("heap")
        with pytest.raises(bsa.OutOfMemoryError):
            other.malloc(1 * MIB)

    heap.on_oom = use_other
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(64 * KIB)
    assert calls == ["heap", "other"]


def test_on_oom_is_called_again_after_it_raised(full):
    heap, _ = full
    calls = []

    def fail(allocator, size):
        calls.append(size)
        raise KeyError

    heap.on_oom = fail
    for _ in range(2):
        with pytest.raises(KeyError):
            heap.malloc(64 * KIB)
    assert len(calls) == 2


def test_a_request_larger_than_any_block_never_asks(heap):
    calls = []
    heap.on_oom = lambda allocator, size: calls.append(size)
    largest = heap.page_size << bsa.MAX_ORDER
    address = heap.malloc(10)
    for size in (largest + 1, 1 << 40, 1 << 63, (1 << 64) - 1):
        for request in (heap.malloc, heap.alloc, lambda n: heap.realloc(address, n)):
            with unchanged(heap), pytest.raises(bsa.OutOfMemoryError):
                request(size)
        with unchanged(heap), pytest.raises(bsa.OutOfMemoryError):
            heap.malloc_many(2, size)
    assert calls == []


def test_a_request_as_large_as_the_largest_block_asks(heap):
    calls = []
    heap.on_oom = lambda allocator, size: calls.append(size)
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(heap.page_size << bsa.MAX_ORDER)
    assert calls == [heap.page_size << bsa.MAX_ORDER]


def test_invalid_requests_do_not_ask(heap):
    calls = []
    heap.on_oom = lambda allocator, size: calls.append(size)
    for request in (lambda: heap.alloc_pages(0), lambda: heap.malloc(1, 3)):
        with pytest.raises(bsa.InvalidParamError):
            request()
    assert calls == []


def test_on_oom_can_be_read_set_and_reset(heap):
    callback = lambda allocator, size: False  # noqa: E731
    heap.on_oom = callback
    assert heap.on_oom is callback
    with pytest.raises(TypeError):
        heap.on_oom = 5
    assert heap.on_oom is callback
    heap.on_oom = None
    assert heap.on_oom is None


def test_what_on_oom_frees_realloc_no_longer_finds(full):
    heap, addresses = full
    old = addresses.pop()
    heap.on_oom = lambda allocator, size: old not in heap or heap.free(old) is None
    with pytest.raises(bsa.NotAllocatedError):
        heap.realloc(old, 256 * KIB)


def test_what_on_oom_takes_into_a_block_realloc_leaves_alone(full):
    heap, addresses = full
    old = addresses.pop()
    blocks = []

    def take(allocator, size):
        blocks.append(heap.block(old))
        heap.free_many(addresses)
        return True

    heap.on_oom = take
    with pytest.raises(bsa.InvalidParamError):
        heap.realloc(old, 256 * KIB)
    assert blocks[0].address in heap


# --- slots ---


def test_a_thread_can_be_pinned_to_a_slot():
    assert bsa.set_cpu(1) is None
    try:
        assert bsa.current_cpu() == 1
        assert bsa.set_cpu(0) == 1
    finally:
        bsa.set_cpu(None)


def test_cpu_pins_within_a_with_statement(heap):
    with bsa.cpu(1):
        with bsa.cpu(0):
            assert bsa.current_cpu() == 0
            assert heap.slab_of(heap.malloc(10)).cpu == 0
        assert bsa.current_cpu() == 1
        assert heap.slab_of(heap.malloc(10)).cpu == 1
    assert bsa.set_cpu(None) is None


def test_a_cpu_object_can_be_entered_again_while_entered():
    pin = bsa.cpu(1)
    with pin, pin:
        assert bsa.current_cpu() == 1
    assert bsa.set_cpu(None) is None


@pytest.mark.parametrize(
    "number, error",
    [
        (-1, bsa.InvalidParamError),
        (65535, bsa.InvalidParamError),
        (1 << 32, bsa.InvalidParamError),
        (1 << 64, OverflowError),
        ("0", TypeError),
        (1.0, TypeError),
    ],
)
def test_what_is_no_slot_number_pins_nothing(number, error):
    with pytest.raises(error):
        bsa.set_cpu(number)
    with pytest.raises(error):
        with bsa.cpu(number):
            pass
    assert bsa.set_cpu(None) is None


def test_a_slot_that_the_allocator_lacks_refuses_allocations(heap):
    address = heap.malloc(100)
    with bsa.cpu(heap.cpus):
        for request in (
            lambda: heap.malloc(10),
            lambda: heap.alloc(10_000),
            lambda: heap.alloc_pages(1),
            lambda: heap.alloc_pages_lowmem(1),
            lambda: heap.malloc_many(2, 10),
            lambda: heap.realloc(address, 100_000),
        ):
            with unchanged(heap), pytest.raises(bsa.InvalidParamError):
                request()


def test_frees_from_a_slot_that_the_allocator_lacks_are_remote(heap):
    with bsa.cpu(0):
        small, large = heap.malloc(64), heap.malloc(10_000)
    with bsa.cpu(1000):
        heap.free(small)
        heap.free(large)
    assert heap.slab_of(small).remote_free_count == 1
    assert len(heap) == 0


def test_threads_that_live_together_get_slots_of_their_own():
    barrier = threading.Barrier(4)
    numbers = []

    def run():
        numbers.append(bsa.current_cpu())
        barrier.wait()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(numbers)) == 4


def test_slots_of_dead_threads_are_used_again():
    numbers = set()
    for _ in range(300):
        thread = threading.Thread(target=lambda: numbers.add(bsa.current_cpu()))
        thread.start()
        thread.join()
    assert len(numbers) < 100


def test_a_pin_is_of_one_thread():
    seen = []
    with bsa.cpu(50):
        thread = threading.Thread(target=lambda: seen.append(bsa.set_cpu(None)))
        thread.start()
        thread.join()
        assert bsa.current_cpu() == 50
    assert seen == [None]


def test_threads_can_use_one_allocator_at_once(heap):
    failures = []

    def churn(seed):
        try:
            mine = []
            for i in range(3000):
                mine.append((heap.alloc((i * seed) % 6000), i % 256))
                mine[-1][0][:] = bytes([i % 256]) * mine[-1][0].size
                if i % 3:
                    block, byte = mine.pop(i * seed % len(mine))
                    assert block[:] == bytes([byte]) * block.size
                if i % 500 == 0:
                    heap.check()
        except Exception as error:  # reported below: a thread's own would only be printed
            failures.append(error)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in (7, 11, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(heap) == 0


# --- closing ---


def test_a_closed_allocator_says_so(heap):
    assert not heap.closed
    heap.close()
    assert heap.closed
    assert repr(heap) == "<bsa.Allocator, closed>"


def test_closing_may_be_repeated(heap):
    heap.close()
    heap.close()


def test_closing_forgets_raw_allocations_and_callbacks(make):
    heap = make(1 * MIB, on_oom=lambda allocator, size: False, phys=lambda address: 0)
    heap.malloc(100)
    heap.close()
    assert heap.on_oom is None


def test_leaving_a_with_statement_closes():
    with bsa.Allocator(1 * MIB) as heap:
        assert not heap.closed
    assert heap.closed


def test_leaving_a_with_statement_after_closing_does_nothing():
    with bsa.Allocator(1 * MIB) as heap:
        heap.close()


def test_a_closed_allocator_cannot_be_entered(heap):
    heap.close()
    with pytest.raises(bsa.ClosedError):
        heap.__enter__()


def test_leaving_a_with_statement_does_not_replace_an_exception(heap):
    with pytest.raises(KeyError, match="mine"):
        with heap:
            view = memoryview(heap.alloc(10))
            raise KeyError("mine")
    assert not heap.closed
    view.release()


def test_leaving_a_with_statement_complains_of_live_views(heap):
    with pytest.raises(bsa.InUseError):
        with heap:
            view = memoryview(heap.alloc(10))
    view.release()


CALLS = {
    "add_region": (1 << 20,),
    "alloc": (1,),
    "alloc_from": (b"x",),
    "alloc_pages": (1,),
    "alloc_pages_lowmem": (1,),
    "malloc": (1,),
    "realloc": (4096, 1),
    "free": (4096,),
    "malloc_many": (1, 1),
    "free_many": ([4096],),
    "dealloc_pages": (4096, 1),
    "block": (4096,),
    "usable_size": (4096,),
    "section_of": (4096,),
    "slab_of": (4096,),
    "page_state": (4096,),
    "unusable_index": (0,),
    "extfrag_index": (0,),
    **{
        name: ()
        for name in "free_blocks stats reset_peak slabs walk check trim __enter__ __len__".split()
    },
    "__contains__": (4096,),
}


@pytest.mark.parametrize("name", CALLS)
def test_methods_of_a_closed_allocator_raise_closed_error(heap, name):
    heap.close()
    with pytest.raises(bsa.ClosedError):
        getattr(heap, name)(*CALLS[name])


@pytest.mark.parametrize("name", [n for n in PROPERTIES if n not in ("limit", "on_oom", "closed")])
def test_properties_of_a_closed_allocator_raise_closed_error(heap, name):
    heap.close()
    with pytest.raises(bsa.ClosedError):
        getattr(heap, name)


def test_properties_of_a_closed_allocator_cannot_be_set(heap):
    heap.close()
    with pytest.raises(bsa.ClosedError):
        heap.limit = 5
    with pytest.raises(bsa.ClosedError):
        heap.on_oom = print


def test_a_section_of_a_closed_allocator_cannot_be_used(heap):
    section = heap.sections[0]
    heap.close()
    with pytest.raises(bsa.ClosedError):
        section.free_blocks()
    with pytest.raises(bsa.ClosedError):
        section.size
    with pytest.raises(bsa.ClosedError):
        heap.remove_region(section)
    assert repr(section)


def test_memory_is_managed_again_by_another_allocator_after_closing(make):
    memory = bytearray(1 * MIB)
    first = make(memory)
    first.malloc(100)
    first.close()
    second = make(memory)
    assert len(second) == 0 and second.free_pages == second.total_pages


# --- code that runs in the middle ---

# Garbage in a cycle whose finaliser does something, and a collection at the next object made.
ACT_AT_NEXT_COLLECTION = """
import gc, bsa
heap = bsa.Allocator(1 << 20, cpus=1)
address = heap.malloc(100)
section = heap.sections[0] if "section." in {operation!r} else None
keep = [heap.alloc(10) for _ in range(200)]

class Acts:
    def __init__(self):
        self.me = self
    def __del__(self):
        {action}

def operation():
    return {operation}

gc.collect()
keep.append([tuple(range(size)) for size in range(1, 30) for _ in range(20)])
keep.append([[] for _ in range(200)])  # no list or tuple is left over that could be used again
Acts()
gc.set_threshold(1)
try:
    result = operation()
except (bsa.AllocError, ValueError):
    result = None
gc.set_threshold(0)
{then}
"""


@pytest.mark.parametrize(
    "operation",
    [
        "heap.alloc(100)",
        "heap.alloc(100, zero=True)",
        "heap.alloc_from(b'x')",
        "heap.alloc_pages(1)",
        "heap.alloc_pages_lowmem(1)",
        "heap.block(address)",
        "heap.malloc_many(3, 100)",
        "heap.free_many(iter([address]))",
        "heap.add_region(1 << 20)",
        "heap.sections",
        "heap.section_of(address)",
        "heap.slab_of(address)",
        "heap.slabs()",
        "heap.stats()",
        "heap.walk()",
        "list(heap.walk())",
        "heap.size_classes",
        "heap.free_blocks()",
        "section.free_blocks()",
        "section.free_list(3)",
        "section.page_states()",
        "keep[0].section",
        "memoryview(keep[0])",
        "keep[0].resize(1000)",
        "heap.malloc(1 << 40)",
        "heap.free(5)",
    ],
)
def test_a_finaliser_may_close_the_allocator_in_the_middle_of_anything(operation):
    script = ACT_AT_NEXT_COLLECTION.format(
        operation=operation, action="heap.close()", then="result = None; heap.close()"
    )
    in_child(script)


def test_a_finaliser_may_free_what_is_being_taken_into_a_block():
    in_child(
        ACT_AT_NEXT_COLLECTION.format(
            operation="heap.block(address)",
            action="if address in heap: heap.free(address)",
            then="assert result is None or heap.malloc(100) != address; heap.check()",
        )
    )


def test_check_can_run_in_one_thread_while_others_allocate(make):
    heap = make(64 * MIB)
    addresses = heap.malloc_many(50_000, 64)
    stop = threading.Event()

    def check():
        while not stop.is_set():
            heap.check()

    checker = threading.Thread(target=check)
    checker.start()
    try:
        for address in addresses[:2000]:
            heap.free(address)
            with contextlib.suppress(bsa.InUseError):
                heap.alloc(100)
    finally:
        stop.set()
        checker.join()
    assert len(heap) == 48_000
