"""What comes before a request fails: the limit, and on_oom."""

import pytest

import bsa
from helpers import KIB, MIB, exhaust, unchanged

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


def test_an_answer_that_asks_for_memory_itself_does_not_ask_again(full):
    heap, _ = full
    asked = []

    class Answer:
        def __bool__(self):
            with pytest.raises(bsa.OutOfMemoryError):
                heap.malloc(64 * KIB)
            return False

    heap.on_oom = lambda allocator, size: asked.append(size) or Answer()
    with pytest.raises(bsa.OutOfMemoryError):
        heap.malloc(64 * KIB)
    assert asked == [64 * KIB]


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
