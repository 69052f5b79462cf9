"""Blocks: the interface, items, free, resize, detach."""

import gc
import inspect

import pytest

import bsa
from helpers import KIB, MIB, Index, exhaust, unchanged

SIZES = [10, 100, 2048, 5000, 100_000]


@pytest.fixture
def small(make):
    """A heap small enough to be written over quickly."""
    return make(1 * MIB)


# --- the interface ---


@pytest.mark.parametrize(
    "name, signature",
    [("free", "($self, /)"), ("resize", "($self, size, /)"), ("detach", "($self, /)")],
)
def test_each_method_has_a_docstring_and_a_signature(name, signature):
    method = getattr(bsa.Block, name)
    assert method.__text_signature__ == signature
    assert len(method.__doc__) > 20


@pytest.mark.parametrize(
    "name", ["address", "offset", "size", "usable_size", "section", "allocator", "freed"]
)
def test_each_attribute_has_a_docstring_and_is_read_only(heap, name):
    assert inspect.getdoc(getattr(bsa.Block, name))
    with pytest.raises(AttributeError):
        setattr(heap.alloc(10), name, None)


@pytest.mark.parametrize("size", [0, 1, *SIZES])
def test_a_block_tells_where_and_how_large_it_is(heap, size):
    block = heap.alloc(size)
    section = heap.sections[0]
    assert block.size == len(block) == size
    assert block.usable_size == heap.usable_size(block.address) >= size
    assert block.offset == block.address - section.region_start
    assert block.section is section
    assert block.allocator is heap
    assert block.freed is False


def test_pages_are_a_block_of_the_pages_asked_for(heap):
    block = heap.alloc_pages(3)
    assert (block.size, block.usable_size) == (3 * 4096, 4 * 4096)
    block = heap.alloc_pages(3, exact=True)
    assert (block.size, block.usable_size) == (3 * 4096, 3 * 4096)


def test_blocks_are_equal_and_hashed_by_identity(heap):
    first, second = heap.alloc_from(b"same"), heap.alloc_from(b"same")
    assert first == first and first != second
    assert len({first, second, first}) == 2


def test_repr_tells_size_and_state(heap):
    block = heap.alloc(100)
    assert f"100 bytes at {block.address:#x}" in repr(block)
    block.free()
    assert "freed" in repr(block)
    block = heap.alloc(100)
    block.detach()
    assert "detached" in repr(block)


def test_dropping_the_last_reference_frees(heap):
    block = heap.alloc(100)
    other = block
    del block
    assert len(heap) == 1
    del other
    assert len(heap) == 0


def test_a_block_keeps_its_allocator_alive():
    block = bsa.Allocator(1 * MIB).alloc(100)
    gc.collect()
    block[:] = b"x" * 100
    assert block.allocator.alloc(10).size == 10


def test_zeroed_blocks_are_zero(make):
    heap = make(bytearray(b"\xff" * (4 * MIB)))
    for size in (0, 1, 100, 5000, 1 * MIB):
        assert not any(heap.alloc(size, zero=True)[:])


# --- items ---


def test_items_are_integers(heap):
    block = heap.alloc_from(b"hello")
    assert block[0] == ord("h") and block[-1] == ord("o")
    block[0] = ord("j")
    block[-1] = 0
    assert block[:] == b"jell\0"


@pytest.mark.parametrize("index", [5, -6, 1 << 62, 1 << 64, -(1 << 64)])
def test_an_index_beyond_the_size_is_an_index_error(heap, index):
    block = heap.alloc_from(b"hello")
    with pytest.raises(IndexError):
        block[index]
    with pytest.raises(IndexError):
        block[index] = 0
    assert block[:] == b"hello"


def test_granted_bytes_beyond_the_size_are_out_of_range(heap):
    block = heap.alloc(9)
    assert block.usable_size > 9
    with pytest.raises(IndexError):
        block[9]
    assert len(block[:100]) == 9


SLICES = [
    slice(None),
    slice(1, 3),
    slice(3, 1),
    slice(-3, None),
    slice(None, None, 2),
    slice(None, None, -1),
    slice(4, 0, -2),
    slice(-100, 100),
    slice(2, 2),
    slice(1 << 70, -(1 << 70), -1),
]


@pytest.mark.parametrize("key", SLICES)
def test_slices_are_bytes_as_those_of_a_bytearray(heap, key):
    data = bytearray(b"hello")
    part = heap.alloc_from(data)[key]
    assert type(part) is bytes and part == data[key]


@pytest.mark.parametrize("key", SLICES)
def test_slices_are_assigned_as_those_of_a_bytearray(heap, key):
    data = bytearray(b"hello")
    block = heap.alloc_from(data)
    new = bytes(range(len(data[key])))
    data[key] = block[key] = new
    assert block[:] == data


@pytest.mark.parametrize("key", [slice(None), slice(1, 3), slice(None, None, 2)])
@pytest.mark.parametrize("wrong", [b"", b"too long to fit"])
def test_a_slice_keeps_its_size(heap, key, wrong):
    block = heap.alloc_from(b"hello")
    with pytest.raises(ValueError):
        block[key] = wrong
    assert block[:] == b"hello"


@pytest.mark.parametrize(
    "value, error",
    [(256, ValueError), (-1, ValueError), (1 << 64, OverflowError), (b"x", TypeError)],
)
def test_what_is_no_byte_is_not_assigned(heap, value, error):
    block = heap.alloc_from(b"hello")
    with pytest.raises(error):
        block[0] = value
    assert block[:] == b"hello"


@pytest.mark.parametrize("value", [5, "x", None, [1, 2, 3, 4, 5]])
def test_only_bytes_are_assigned_to_a_slice(heap, value):
    block = heap.alloc_from(b"hello")
    with pytest.raises(TypeError):
        block[:] = value


@pytest.mark.parametrize("key", ["x", None, 1.0, (0, 1)])
def test_other_keys_are_a_type_error(heap, key):
    block = heap.alloc_from(b"hello")
    with pytest.raises(TypeError):
        block[key]
    with pytest.raises(TypeError):
        block[key] = 0


def test_items_cannot_be_deleted(heap):
    block = heap.alloc_from(b"hello")
    with pytest.raises(TypeError):
        del block[0]
    with pytest.raises(TypeError):
        del block[:]


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_slice_may_be_assigned_from_overlapping_bytes(heap, shift):
    block = heap.alloc_from(bytes(range(10)))
    block[shift:] = memoryview(block)[: 10 - shift]
    assert block[shift:] == bytes(range(10 - shift))


def test_a_block_is_reversed_in_place(heap):
    block = heap.alloc_from(bytes(range(10)))
    block[::-1] = block
    assert block[:] == bytes(range(10))[::-1]


def test_an_index_that_frees_the_block_is_refused_its_byte(heap):
    for use in (
        lambda block, key: block[key],
        lambda block, key: block[key:],
        lambda block, key: block.__setitem__(key, 1),
        lambda block, key: block.__setitem__(0, key),
        lambda block, key: block.__setitem__(slice(key, 2), b"x"),
        lambda block, key: block.resize(key),
    ):
        block = heap.alloc(100)
        with pytest.raises(bsa.NotAllocatedError):
            use(block, Index(1, block.free))
        assert len(heap) == 0


def test_an_index_that_closes_the_allocator_is_refused_its_byte(make):
    for use in (
        lambda block, key: block[key],
        lambda block, key: block[key:],
        lambda block, key: block.__setitem__(key, 1),
        lambda block, key: block.__setitem__(0, key),
        lambda block, key: block.__setitem__(slice(key, 2), b"x"),
        lambda block, key: block.resize(key),
    ):
        heap = make(1 * MIB)
        block = heap.alloc(100)
        with pytest.raises(bsa.ClosedError):
            use(block, Index(1, heap.close))


# --- free ---


@pytest.mark.parametrize("size", SIZES)
def test_free_gives_the_bytes_of_a_block_that_was_never_exported_back_at_once(heap, size):
    block = heap.alloc(size)
    address = block.address
    block.free()
    assert block.freed
    assert address not in heap and len(heap) == 0
    assert heap.stats().parked_bytes == 0
    heap.trim()
    assert heap.free_pages == heap.total_pages


def test_a_block_is_freed_once_only(heap):
    block = heap.alloc(100)
    block.free()
    for again in (block.free, lambda: heap.free(block)):
        with unchanged(heap), pytest.raises(bsa.NotAllocatedError):
            again()


ACCESSES = {
    "address": lambda block: block.address,
    "offset": lambda block: block.offset,
    "usable_size": lambda block: block.usable_size,
    "section": lambda block: block.section,
    "len": len,
    "item": lambda block: block[0],
    "slice": lambda block: block[:],
    "item assignment": lambda block: block.__setitem__(0, 1),
    "slice assignment": lambda block: block.__setitem__(slice(0, 1), b"x"),
    "view": memoryview,
    "bytes": bytes,
    "resize": lambda block: block.resize(10),
    "detach": lambda block: block.detach(),
    "with": lambda block: block.__enter__(),
}


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize("end", ["free", "detach", "close"])
def test_access_after_the_end_is_a_value_error(make, access, end):
    heap = make(1 * MIB)
    block = heap.alloc(100)
    heap.close() if end == "close" else getattr(block, end)()
    assert block.freed
    with pytest.raises(ValueError):
        ACCESSES[access](block)


def test_a_freed_block_still_knows_size_and_allocator(heap):
    block = heap.alloc(100)
    block.free()
    assert (block.size, block.allocator) == (100, heap)


def test_leaving_a_with_statement_frees(heap):
    with heap.alloc(100) as block:
        block[:] = b"x" * 100
    assert block.freed and len(heap) == 0


@pytest.mark.parametrize("end", ["free", "detach"])
def test_leaving_a_with_statement_after_the_end_does_nothing(heap, end):
    with heap.alloc(100) as block:
        getattr(block, end)()


def test_leaving_a_with_statement_after_closing_does_nothing(heap):
    with heap.alloc(100):
        heap.close()


def test_leaving_a_with_statement_complains_of_live_views(heap):
    with pytest.raises(bsa.InUseError):
        with heap.alloc(100) as block:
            view = memoryview(block)
    assert not block.freed
    view.release()


def test_leaving_a_with_statement_does_not_replace_an_exception(heap):
    with pytest.raises(KeyError, match="mine"):
        with heap.alloc(100) as block:
            view = memoryview(block)
            raise KeyError("mine")
    assert not block.freed
    view.release()


# --- resize ---


@pytest.mark.parametrize("old", [0, 10, 2048, 5000, 100_000])
@pytest.mark.parametrize("new", [0, 10, 2048, 5000, 100_000])
@pytest.mark.parametrize("exported", [False, True])
def test_resize_keeps_the_contents_up_to_the_smaller_size(heap, old, new, exported):
    data = bytes(i * 7 % 256 for i in range(old))
    block = heap.alloc_from(data)
    if exported:
        memoryview(block).release()
    block.resize(new)
    assert block.size == len(block) == new
    assert block[: min(old, new)] == data[:new]


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("size", [2 * MIB, 1 << 40, (1 << 64) - 1])
def test_a_failed_resize_leaves_the_block_as_it_was(small, exported, size):
    block = small.alloc_from(b"hello")
    if exported:
        memoryview(block).release()
    with unchanged(small), pytest.raises(bsa.OutOfMemoryError):
        block.resize(size)
    assert block[:] == b"hello"
    block.resize(6)


@pytest.mark.parametrize(
    "size, error", [(-1, bsa.InvalidParamError), (1 << 64, OverflowError), ("x", TypeError)]
)
def test_resize_to_what_is_no_size_is_refused(heap, size, error):
    block = heap.alloc(10)
    with unchanged(heap), pytest.raises(error):
        block.resize(size)


@pytest.mark.parametrize("exported", [False, True])
def test_during_a_resize_on_oom_can_do_nothing_with_the_block(small, exported):
    block = small.alloc_from(b"hello")
    if exported:
        memoryview(block).release()
    exhaust(small.malloc, 64 * KIB)
    seen = []

    def meddle(allocator, size):
        for name in ("free", "detach", "resize", "item", "view"):
            use = {"item": lambda: block[0], "view": lambda: memoryview(block)}.get(name)
            try:
                use() if use else getattr(block, name)(*[10][: name == "resize"])
            except bsa.InUseError:
                seen.append(name)

    small.on_oom = meddle
    with pytest.raises(bsa.OutOfMemoryError):
        block.resize(512 * KIB)
    assert seen == ["free", "detach", "resize", "item", "view"]
    assert block[:] == b"hello"


# --- detach and block ---


@pytest.mark.parametrize("size", SIZES)
def test_detach_gives_the_raw_address_up_and_block_takes_it_back(heap, size):
    block = heap.alloc(size)
    block[:] = b"\x11" * size
    usable, address = block.usable_size, block.detach()
    del block
    assert address in heap
    again = heap.block(address)
    assert (again.address, again.size, again.usable_size) == (address, usable, usable)
    assert again[:size] == b"\x11" * size
    del again
    assert len(heap) == 0


def test_a_block_is_detached_once_only(heap):
    block = heap.alloc(100)
    address = block.detach()
    for again in (block.detach, block.free):
        with unchanged(heap), pytest.raises(bsa.NotAllocatedError):
            again()
    heap.free(address)


def test_dropping_a_detached_block_frees_nothing(heap):
    block = heap.alloc(100)
    address = block.detach()
    del block
    assert list(heap.walk()) == [(address, heap.usable_size(address), "object")]


@pytest.mark.parametrize("size", SIZES)
def test_the_address_of_a_block_is_refused_everywhere_else(heap, size):
    block = heap.alloc(size)
    raw = heap.malloc(10)
    address = block.address
    for refused in (
        lambda: heap.free(address),
        lambda: heap.free_many([raw, address]),
        lambda: heap.realloc(address, 2 * size),
        lambda: heap.dealloc_pages(address, 1),
        lambda: heap.block(address),
    ):
        with unchanged(heap), pytest.raises(bsa.InvalidParamError, match="owned by a Block"):
            refused()


def test_parked_addresses_are_refused_too(heap):
    block = heap.alloc(100)
    memoryview(block).release()
    first = block.address
    block.resize(10_000)
    memoryview(block).release()
    second = block.address
    block.free()
    for address in (first, second):
        for refused in (heap.free, heap.block, lambda a: heap.free_many([a])):
            with unchanged(heap), pytest.raises(bsa.InvalidParamError, match="owned by a Block"):
                refused(address)


def test_ownership_is_known_of_each_of_many_blocks_that_come_and_go(heap):
    blocks = {heap.alloc(16) for _ in range(2000)}
    for round_ in range(5):
        for block in list(blocks)[::3]:
            blocks.remove(block)
            with pytest.raises(bsa.InvalidParamError, match="owned"):
                heap.free(block.address)
            address = block.detach() if round_ % 2 else block.address
            del block
            if round_ % 2:
                heap.free(address)
        blocks |= {heap.alloc(16) for _ in range(500)}
        kinds = {kind for _, _, kind in heap.walk()}
        assert kinds == {"block"} and len(heap) == len(blocks)


def test_an_address_can_be_freed_after_its_block_was_detached(heap):
    address = heap.alloc(100).detach()
    with heap.alloc(100) as other:
        with pytest.raises(bsa.InvalidParamError):
            heap.free(other.address)
        heap.free(address)
