"""Raw addresses: malloc, realloc, free, one by one and in bulk."""

from array import array

import pytest

import bsa
from helpers import MIB, aligned, peek, poke, unchanged

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
