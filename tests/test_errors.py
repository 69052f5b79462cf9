"""Errors: their types, and bad input to everything that takes a number."""

import inspect
import pickle

import pytest

import bsa
from helpers import KIB, MIB, Index, Truth, exhaust, unchanged

PAGE = 4096
BUILT_IN = {
    "InvalidParamError": ValueError,
    "OutOfMemoryError": MemoryError,
    "MemoryOverlapError": ValueError,
    "NotAllocatedError": ValueError,
    "NotFoundError": LookupError,
    "NotInitializedError": RuntimeError,
    "InUseError": BufferError,
    "ClosedError": ValueError,
    "CorruptionError": RuntimeError,
}
ALL = ["AllocError", *BUILT_IN]
ATTRIBUTES = ["requested", "align", "free", "largest_free", "unusable_index"]


# --- the types ---


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_error_is_an_alloc_error_and_a_built_in_one(name):
    error = getattr(bsa, name)
    assert issubclass(error, bsa.AllocError)
    assert issubclass(error, BUILT_IN[name])


def test_an_alloc_error_is_an_exception():
    assert bsa.AllocError.__bases__ == (Exception,)


@pytest.mark.parametrize("name", ALL)
def test_each_error_has_a_docstring_and_belongs_to_bsa(name):
    error = getattr(bsa, name)
    assert inspect.getdoc(error)
    assert error.__module__ == "bsa" and error.__qualname__ == name


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("arguments", [(), ("text",), ("text", 5)])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_each_error_is_made_and_pickled_with_any_arguments(name, arguments, protocol):
    error = getattr(bsa, name)(*arguments)
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error) and again.args == arguments


def test_out_of_memory_has_its_attributes_even_if_made_without():
    error = bsa.OutOfMemoryError()
    assert [getattr(error, name) for name in ATTRIBUTES] == [None] * 5


def test_out_of_memory_tells_what_was_asked_for_and_what_there_was(heap):
    exhaust(heap.malloc, 64 * KIB)
    with pytest.raises(bsa.OutOfMemoryError) as info:
        heap.malloc(100_000, 8 * PAGE)
    error = info.value
    assert (error.requested, error.align) == (100_000, 8 * PAGE)
    assert (error.free, error.largest_free) == (heap.free_pages * PAGE, heap.largest_free)
    assert error.unusable_index == heap.unusable_index(5)
    assert "100000 bytes" in str(error) and str(error.free) in str(error)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_out_of_memory_is_pickled_with_its_attributes(heap, protocol):
    with pytest.raises(bsa.OutOfMemoryError) as info:
        heap.malloc(32 * MIB)
    again = pickle.loads(pickle.dumps(info.value, protocol))
    for name in ATTRIBUTES:
        assert getattr(again, name) == getattr(info.value, name)
    assert str(again) == str(info.value)


@pytest.mark.parametrize(
    "call, requested",
    [
        (lambda heap: heap.alloc_pages(1 << 13), (1 << 13) * PAGE),
        (lambda heap: heap.malloc_many(1 << 20, 100), 100 << 20),
        (lambda heap: heap.malloc_many(1 << 40, 1 << 40), (1 << 64) - 1),
        (lambda heap: heap.alloc_from(bytes(32 * MIB)), 32 * MIB),
        (lambda heap: heap.alloc(10).resize(32 * MIB), 32 * MIB),
        (lambda heap: heap.realloc(heap.malloc(10), 32 * MIB), 32 * MIB),
        (lambda heap: heap.malloc((1 << 64) - 1), (1 << 64) - 1),
    ],
)
def test_out_of_memory_tells_the_bytes_of_every_kind_of_request(heap, call, requested):
    with pytest.raises(bsa.OutOfMemoryError) as info:
        call(heap)
    assert info.value.requested == requested


# --- numbers ---

# Each takes a number of its kind, in an otherwise valid call.
SIZES = {
    "alloc": lambda heap, n: heap.alloc(n),
    "malloc": lambda heap, n: heap.malloc(n),
    "malloc zero": lambda heap, n: heap.malloc(n, zero=True),
    "malloc_many size": lambda heap, n: heap.malloc_many(2, n),
    "realloc": lambda heap, n: heap.realloc(next(heap.walk())[0], n),
}
COUNTS = {
    "alloc_pages": lambda heap, n: heap.alloc_pages(n),
    "alloc_pages exact": lambda heap, n: heap.alloc_pages(n, exact=True),
    "alloc_pages_lowmem": lambda heap, n: heap.alloc_pages_lowmem(n),
}
OTHERS = {
    "malloc_many count": lambda heap, n: heap.malloc_many(n, 64),
    "align": lambda heap, n: heap.malloc(10, n),
    "align of pages": lambda heap, n: heap.alloc_pages(1, n),
    "align of many": lambda heap, n: heap.malloc_many(1, 10, n),
    "slabs": lambda heap, n: heap.slabs(n),
    "unusable_index": lambda heap, n: heap.unusable_index(n),
    "limit": lambda heap, n: setattr(heap, "limit", n),
}
ADDRESSES = {
    "free": lambda heap, n: heap.free(n),
    "free_many": lambda heap, n: heap.free_many([n]),
    "realloc address": lambda heap, n: heap.realloc(n, 10),
    "dealloc_pages": lambda heap, n: heap.dealloc_pages(n, 1),
    "block": lambda heap, n: heap.block(n),
    "usable_size": lambda heap, n: heap.usable_size(n),
    "section_of": lambda heap, n: heap.section_of(n),
    "slab_of": lambda heap, n: heap.slab_of(n),
    "page_state": lambda heap, n: heap.page_state(n),
}
NUMBERS = {**SIZES, **COUNTS, **OTHERS, **ADDRESSES}


@pytest.fixture
def used(make):
    """A heap with low memory and a raw allocation."""
    heap = make(1 * MIB, phys=0)
    heap.malloc(10_000)
    return heap


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "number, error",
    [
        (-1, bsa.InvalidParamError),
        (-2, bsa.InvalidParamError),  # of one digit, as CPython keeps ints
        (-(1 << 30) + 1, bsa.InvalidParamError),
        (-(1 << 31), bsa.InvalidParamError),
        (-(1 << 63), bsa.InvalidParamError),
        (-(1 << 63) - 1, bsa.InvalidParamError),
        (-(1 << 64), bsa.InvalidParamError),
        (-(1 << 200), bsa.InvalidParamError),
        pytest.param(-(1 << 20_000), bsa.InvalidParamError, id="of 6000 digits"),
        (1 << 64, OverflowError),
        ((1 << 64) + 10, OverflowError),
        ((1 << 64) + PAGE, OverflowError),
        (1 << 200, OverflowError),
        (1.0, TypeError),
        ("1", TypeError),
        (b"1", TypeError),
        ([], TypeError),
    ],
)
def test_what_is_no_64_bit_number_is_refused_by_all(used, name, number, error):
    with unchanged(used), pytest.raises(error):
        NUMBERS[name](used, number)


NEAR = [n + d for n in (1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1) for d in (-1, 0, 1)][:-1]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("size", [1 << 30, *NEAR])
def test_sizes_too_large_are_out_of_memory_and_never_truncated(used, name, size):
    with unchanged(used), pytest.raises(bsa.OutOfMemoryError):
        SIZES[name](used, size)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("count", [0, (1 << 20) + 1, (1 << 32) + 1, (1 << 52) + 1, *NEAR])
def test_counts_of_no_block_are_invalid_and_never_truncated(used, name, count):
    with unchanged(used), pytest.raises(bsa.InvalidParamError):
        COUNTS[name](used, count)


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize("address", [0, 1, *NEAR])
def test_addresses_outside_every_heap_are_not_found(used, name, address):
    with unchanged(used), pytest.raises(bsa.NotFoundError):
        ADDRESSES[name](used, address)


# --- addresses ---

STARTS = ["free", "free_many", "realloc address", "block", "usable_size"]


def wrong_starts(heap):
    """Addresses at which no live allocation starts, and the error each is."""
    small, pages = heap.malloc(64), heap.malloc(3 * PAGE)
    freed_small, freed_pages = heap.malloc(64), heap.malloc(PAGE)
    heap.free(freed_small)
    heap.free(freed_pages)
    section = heap.sections[0]
    not_there = (bsa.InvalidParamError, bsa.NotAllocatedError, bsa.NotFoundError)  # as it happens
    return {
        "a byte into an object": (small + 1, bsa.InvalidParamError),
        "the middle of an object": (small + 32, bsa.InvalidParamError),
        "the byte before an object": (small - 1, not_there),
        "a byte into pages": (pages + 1, bsa.InvalidParamError),
        "the byte before pages": (pages - 1, not_there),
        "the second page": (pages + PAGE, bsa.NotAllocatedError),
        "the last byte of pages": (pages + 4 * PAGE - 1, bsa.InvalidParamError),
        "a freed object": (freed_small, bsa.NotAllocatedError),
        "freed pages": (freed_pages, bsa.NotAllocatedError),
        "an object not yet used": (freed_small + 64, bsa.NotAllocatedError),
        "the first byte of the region": (section.region_start, bsa.NotFoundError),
        "the header": (section.start - section.metadata_size, bsa.NotFoundError),
        "the last byte of metadata": (section.start - 1, bsa.NotFoundError),
        "the byte behind the heap": (section.start + section.size, bsa.NotFoundError),
    }


@pytest.mark.parametrize("call", STARTS)
@pytest.mark.parametrize(
    "place",
    [
        "a byte into an object",
        "the middle of an object",
        "the byte before an object",
        "a byte into pages",
        "the byte before pages",
        "the second page",
        "the last byte of pages",
        "a freed object",
        "freed pages",
        "an object not yet used",
        "the first byte of the region",
        "the header",
        "the last byte of metadata",
        "the byte behind the heap",
    ],
)
def test_addresses_at_which_no_allocation_starts_are_refused(heap, call, place):
    address, error = wrong_starts(heap)[place]
    with unchanged(heap), pytest.raises(error):
        ADDRESSES[call](heap, address)


@pytest.mark.parametrize("call", STARTS + ["dealloc_pages"])
def test_addresses_of_another_allocator_are_not_found(heap, make, call):
    other = make(1 * MIB)
    for size in (64, 10_000):
        address = other.malloc(size)
        with unchanged(heap, other), pytest.raises(bsa.NotFoundError):
            ADDRESSES[call](heap, address)


@pytest.mark.parametrize("size", [10, 10_000])
def test_memory_is_freed_once_only(heap, size):
    address = heap.malloc(size)
    heap.free(address)
    with unchanged(heap), pytest.raises(bsa.NotAllocatedError):
        heap.free(address)


def test_an_error_names_the_address(heap):
    with pytest.raises(bsa.NotFoundError, match="0x1234"):
        heap.free(0x1234)


@pytest.mark.parametrize("wrong", [None, "x", 1.5, b"x", object(), bsa.Allocator])
def test_only_addresses_and_blocks_are_freed(heap, wrong):
    with unchanged(heap), pytest.raises(TypeError):
        heap.free(wrong)


# --- arguments that run code ---


@pytest.mark.parametrize("name", [name for name in NUMBERS])
def test_an_index_that_closes_the_allocator_makes_it_closed(make, name):
    heap = make(1 * MIB, phys=0)
    heap.malloc(10_000)
    address = heap.malloc(64)
    value = address if name in ADDRESSES else 1
    if name == "realloc":
        call = lambda heap, n: heap.realloc(address, n)  # noqa: E731
    else:
        call = NUMBERS[name]
    with pytest.raises(bsa.ClosedError):
        call(heap, Index(value, heap.close))


@pytest.mark.parametrize("name", [name for name in NUMBERS if name != "limit"])
def test_what_an_index_raises_propagates_from_all(used, name):
    def fail():
        raise KeyError("mine")

    with unchanged(used), pytest.raises(KeyError, match="mine"):
        NUMBERS[name](used, Index(1, fail))


@pytest.mark.parametrize("name", ADDRESSES)
def test_an_index_that_frees_its_own_address_has_freed_it(heap, name):
    address = heap.malloc(PAGE)
    index = Index(address, lambda: heap.free(address))
    if name in ("section_of", "slab_of", "page_state"):
        ADDRESSES[name](heap, index)
    else:
        with pytest.raises(bsa.NotAllocatedError):
            ADDRESSES[name](heap, index)
    assert len(heap) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda heap, flag: heap.alloc(10, zero=flag),
        lambda heap, flag: heap.malloc(10, zero=flag),
        lambda heap, flag: heap.alloc_pages(1, exact=flag),
    ],
)
def test_a_flag_that_closes_the_allocator_makes_it_closed(make, call):
    heap = make(1 * MIB)
    with pytest.raises(bsa.ClosedError):
        call(heap, Truth(True, heap.close))


def test_what_a_flag_raises_propagates(heap):
    def fail():
        raise KeyError("mine")

    with unchanged(heap), pytest.raises(KeyError, match="mine"):
        heap.alloc(10, zero=Truth(True, fail))


def test_an_iterable_that_closes_the_allocator_frees_nothing(make):
    heap = make(1 * MIB)
    address = heap.malloc(10)

    def addresses():
        yield address
        heap.close()

    with pytest.raises(bsa.ClosedError):
        heap.free_many(addresses())


def test_an_iterable_that_frees_what_it_yields_frees_it_once(heap):
    addresses = [heap.malloc(10) for _ in range(3)]

    def freeing():
        for address in addresses:
            heap.free(address)
            yield address

    with pytest.raises(bsa.NotAllocatedError):
        heap.free_many(freeing())
    assert len(heap) == 0


def test_what_an_iterable_raises_propagates(heap):
    addresses = [heap.malloc(10) for _ in range(3)]

    def failing():
        yield addresses[0]
        raise KeyError("mine")

    with unchanged(heap), pytest.raises(KeyError, match="mine"):
        heap.free_many(failing())


def test_an_address_with_an_index_that_closes_is_in_no_allocator(make):
    heap = make(1 * MIB)
    address = heap.malloc(10)
    with pytest.raises(bsa.ClosedError):
        Index(address, heap.close) in heap
