"""Blocks: memory that cannot dangle.

Many tests here take all free memory and write over it (`overwrite`): a Block whose bytes had been handed out again too
early would then read them as 0xff, or corrupt a neighbour.
"""

import ctypes
import gc
import inspect
import os
import sys
import weakref

import pytest

import bsa
from helpers import KIB, MIB, Index, exhaust, in_child, overwrite, peek, unchanged

SIZES = [10, 100, 2048, 5000, 100_000]


class Consumer:
    """As NumPy's ndarray(buffer=...): takes the address, drops the view at once, keeps a reference to the object."""

    def __init__(self, block):
        with memoryview(block) as view:
            array = (ctypes.c_char * view.nbytes).from_buffer(view)
            self.address, self.size = ctypes.addressof(array), view.nbytes
            del array
        self.base = block

    def read(self):
        return peek(self.address, self.size)


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


# --- live views ---


def test_a_view_reads_and_writes_the_blocks_bytes(heap):
    block = heap.alloc_from(b"hello")
    with memoryview(block) as view:
        assert (view.format, view.itemsize, view.readonly, view.nbytes) == ("B", 1, False, 5)
        view[0] = ord("j")
    assert block[:] == b"jello"


def test_a_view_spans_the_bytes_asked_for(heap):
    for size in (0, 9, 5000):
        with memoryview(heap.alloc(size)) as view:
            assert view.nbytes == size


def refusals(block):
    """What would take the bytes of the block away."""
    heap = block.allocator
    return {
        "free": block.free,
        "Allocator.free": lambda: heap.free(block),
        "resize": lambda: block.resize(1),
        "detach": block.detach,
        "close": heap.close,
        "remove_region": lambda: heap.remove_region(heap.sections[0]),
    }


@pytest.mark.parametrize(
    "name", ["free", "Allocator.free", "resize", "detach", "close", "remove_region"]
)
@pytest.mark.parametrize("count", [1, 3])
def test_nothing_takes_bytes_away_while_views_are_alive(heap, name, count):
    block = heap.alloc_from(b"hello")
    views = [memoryview(block) for _ in range(count)]
    with unchanged(heap), pytest.raises(bsa.InUseError, match=f"{count} view"):
        refusals(block)[name]()
    assert [bytes(view) for view in views] == [b"hello"] * count
    for view in views:
        view.release()


def test_views_of_views_are_one_export(heap):
    block = heap.alloc_from(b"hello")
    view = memoryview(block)
    views = [view[1:], view[::2], view.cast("b"), memoryview(view)]
    with unchanged(heap), pytest.raises(bsa.InUseError, match="1 view"):
        block.free()
    view.release()  # the others hold the export
    with unchanged(heap), pytest.raises(bsa.InUseError, match="1 view"):
        block.free()
    assert bytes(views[1]) == b"hlo"
    for other in views:
        other.release()
    block.free()


def test_a_view_keeps_the_block_alive(small):
    view = memoryview(small.alloc_from(b"hello"))
    gc.collect()
    overwrite(small)
    assert bytes(view) == b"hello"
    view.release()
    assert len(small) == 0


def test_resize_and_detach_of_others_are_free_while_a_view_is_alive(heap):
    view = memoryview(heap.alloc(10))
    other = heap.alloc(100)
    other.resize(10_000)
    heap.free(other.detach())
    view.release()


def test_another_section_can_be_removed_while_a_view_is_alive(heap):
    view = memoryview(heap.alloc(10))
    heap.remove_region(heap.add_region(1 * MIB))
    view.release()


# --- consumers that keep the address ---


@pytest.mark.parametrize("size", SIZES)
def test_a_freed_block_that_was_exported_keeps_its_bytes(small, size):
    block = small.alloc(size)
    block[:] = b"\x11" * size
    consumer = Consumer(block)
    block.free()
    overwrite(small)
    assert consumer.read() == b"\x11" * size


@pytest.mark.parametrize("size", SIZES)
def test_a_numpy_array_keeps_reading_its_own_bytes_after_free(small, size):
    np = pytest.importorskip("numpy")
    block = small.alloc(size)
    array = np.ndarray(size, np.uint8, buffer=block)
    array[:] = 0x11
    block.free()
    overwrite(small)
    assert (array == 0x11).all()
    array[:] = 0x22
    small.check()
    assert (array == 0x22).all()


@pytest.mark.parametrize("size", SIZES)
def test_bytes_of_a_freed_block_that_was_exported_are_parked(heap, size):
    block = heap.alloc(size)
    memoryview(block).release()
    address, usable, free = block.address, block.usable_size, heap.free_pages
    block.free()
    assert list(heap.walk()) == [(address, usable, "parked")]
    assert heap.free_pages == free
    assert heap.stats().parked_bytes == usable
    assert heap.stats().current_bytes == heap.stats().current_count == 0
    assert len(heap) == 0 and address not in heap


def test_parked_bytes_are_no_longer_requested(heap):
    for size in SIZES:
        block = heap.alloc(size)
        memoryview(block).release()
        block.free()
        assert heap.requested_bytes == 0


@pytest.mark.parametrize("size", SIZES)
def test_parked_bytes_go_back_when_the_block_goes(heap, size):
    block = heap.alloc(size)
    memoryview(block).release()
    block.free()
    del block
    assert list(heap.walk()) == []
    assert heap.stats().parked_bytes == 0
    heap.trim()
    assert heap.free_pages == heap.total_pages


def test_dropping_a_block_that_was_exported_frees_it_at_once(heap):
    block = heap.alloc(100)
    memoryview(block).release()
    del block
    assert list(heap.walk()) == [] and heap.stats().parked_bytes == 0


@pytest.mark.parametrize("size", SIZES)
def test_a_resize_that_moves_parks_the_old_bytes(small, size):
    block = small.alloc(size)
    block[:] = b"\x11" * size
    consumer = Consumer(block)
    usable = block.usable_size
    block.resize(2 * usable + 1)
    assert block.address != consumer.address
    assert block[:size] == b"\x11" * size
    assert (consumer.address, usable, "parked") in small.walk()
    assert small.stats().parked_bytes == usable
    overwrite(small)
    assert consumer.read() == b"\x11" * size


def test_each_resize_that_moves_parks_its_bytes(small):
    block = small.alloc_from(b"\x01" * 10)
    consumers = []
    for size in (10, 100, 1000, 10_000):
        block.resize(size)
        block[:] = bytes([size % 251]) * size
        consumers.append((Consumer(block), bytes([size % 251]) * size))
    block.free()
    overwrite(small)
    assert all(consumer.read() == data for consumer, data in consumers)
    del block, consumers
    assert list(small.walk()) == []


def test_a_resize_within_the_granted_bytes_stays_though_exported(heap):
    block = heap.alloc(5000)
    consumer = Consumer(block)
    for size in (8192, 0, 100, 5000):
        block.resize(size)
        assert (block.address, block.size) == (consumer.address, size)
        assert heap.requested_bytes == size
    assert heap.stats().parked_bytes == 0


def test_after_an_exported_resize_new_bytes_that_were_not_exported_go_back_at_once(heap):
    block = heap.alloc(100)
    memoryview(block).release()
    block.resize(10_000)
    address = block.address
    block.free()
    assert address not in heap
    assert [kind for _, _, kind in heap.walk()] == ["parked"]


def test_a_block_that_was_exported_cannot_be_detached(heap):
    block = heap.alloc(100)
    memoryview(block).release()
    with unchanged(heap), pytest.raises(bsa.InUseError):
        block.detach()
    block.resize(10_000)
    with unchanged(heap), pytest.raises(bsa.InUseError):
        block.detach()


def test_a_region_with_parked_bytes_is_in_use(heap):
    block = heap.alloc(100)
    memoryview(block).release()
    block.free()
    with unchanged(heap), pytest.raises(bsa.InUseError):
        heap.remove_region(heap.sections[0])
    del block
    heap.remove_region(heap.sections[0])


@pytest.mark.parametrize("freed_first", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_bytes_of_exported_blocks_stay_after_close(make, size, freed_first):
    heap = make(1 * MIB)
    block = heap.alloc(size)
    block[:] = b"\x11" * size
    consumer = Consumer(block)
    if freed_first:
        block.free()
    heap.close()
    assert block.freed
    assert consumer.read() == b"\x11" * size


def test_bytes_parked_by_a_resize_stay_after_close(make):
    heap = make(1 * MIB)
    block = heap.alloc_from(b"hello")
    consumer = Consumer(block)
    block.resize(10_000)
    heap.close()
    assert consumer.read() == b"hello"


def test_a_buffer_stays_exported_after_close_until_exported_blocks_are_gone(make):
    memory = bytearray(1 * MIB)
    heap = make(memory)
    block = heap.alloc(100)
    memoryview(block).release()
    heap.close()
    with pytest.raises(BufferError):
        memory.append(0)
    with pytest.raises(bsa.MemoryOverlapError):
        make(memory)
    del block
    memory.append(0)
    make(memory)


def test_a_buffer_is_released_at_close_if_no_block_was_exported(make):
    memory = bytearray(1 * MIB)
    heap = make(memory)
    blocks = [heap.alloc(100) for _ in range(10)]
    heap.close()
    memory.append(0)
    assert all(block.freed for block in blocks)


def test_a_block_of_a_closed_allocator_frees_nothing_of_the_next_one():
    memory = bytearray(1 * MIB)
    first = bsa.Allocator(memory)
    block = first.alloc(100)
    first.close()
    with bsa.Allocator(memory) as second:
        address = second.malloc(100)
        del block
        assert address in second and len(second) == 1
        second.check()


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


# --- nested heaps ---


def test_a_region_may_lie_inside_one_block(heap, make):
    block = heap.alloc(1 * MIB)
    inner = make(block)
    assert inner.sections[0].buffer is block
    with inner.alloc_from(b"hello") as piece:
        assert block[piece.offset : piece.offset + 5] == b"hello"


def test_two_regions_may_lie_inside_one_block(heap, make):
    view = memoryview(heap.alloc(1 * MIB))
    first, second = make(view[: MIB // 2]), make(view[MIB // 2 :])
    first.malloc(10), second.malloc(10)
    with pytest.raises(bsa.MemoryOverlapError):
        make(view[MIB // 2 - 1 :])


def test_heaps_nest_to_any_depth(make):
    heaps = [make(8 * MIB)]
    for size in (4 * MIB, 2 * MIB, 1 * MIB, 512 * KIB):
        heaps.append(make(heaps[-1].alloc(size)))
    with heaps[-1].alloc_from(b"deep") as piece:
        assert piece[:] == b"deep"
    for heap in heaps:
        heap.check()


@pytest.mark.parametrize("end", ["free", "resize", "detach", "close"])
def test_a_nested_heap_pins_its_block(heap, make, end):
    block = heap.alloc(1 * MIB)
    inner = make(block)
    with unchanged(heap, inner), pytest.raises(bsa.InUseError):
        refusals(block)[end]()
    inner.close()
    block.free()


def test_a_nested_heap_pins_its_block_though_its_memory_came_by_another_view(heap, make):
    block = heap.alloc(1 * MIB)
    array = (ctypes.c_char * (1 * MIB)).from_address(block.address)  # knows nothing of the Block
    inner = make(array)
    with unchanged(heap), pytest.raises(bsa.InUseError):
        block.free()
    inner.close()
    block.free()


def test_a_nested_heap_keeps_its_block_alive(small, make):
    inner = make(small.alloc(256 * KIB))
    piece = inner.alloc_from(b"hello")
    gc.collect()
    overwrite(small)
    assert piece[:] == b"hello"
    inner.check()


def test_exported_blocks_of_a_closed_nested_heap_still_pin(heap, make):
    block = heap.alloc(1 * MIB)
    inner = make(block)
    consumer = Consumer(inner.alloc_from(b"hello"))
    inner.close()
    with pytest.raises(bsa.InUseError):
        block.free()
    assert consumer.read() == b"hello"
    del consumer
    block.free()


def test_a_region_across_two_blocks_overlaps(heap, make):
    addresses = set(exhaust(heap.malloc, 64 * KIB))
    first = next(address for address in addresses if address + 64 * KIB in addresses)
    blocks = [heap.block(first), heap.block(first + 64 * KIB)]
    array = (ctypes.c_char * (100 * KIB)).from_address(first)
    with unchanged(heap), pytest.raises(bsa.MemoryOverlapError):
        make(array)
    del array, blocks


@pytest.mark.parametrize("inside", ["free memory", "raw memory", "metadata", "a freed Block"])
def test_a_region_inside_a_heap_but_not_in_a_block_overlaps(heap, make, inside):
    address = {
        "free memory": lambda: heap.sections[0].start + 8 * MIB,
        "raw memory": lambda: heap.malloc(1 * MIB),
        "metadata": lambda: heap.sections[0].region_start,
        "a freed Block": lambda: parked.address,
    }
    if inside == "a freed Block":
        parked = Consumer(heap.alloc(1 * MIB))
        parked.base.free()
    array = (ctypes.c_char * (100 * KIB)).from_address(address[inside]())
    with unchanged(heap), pytest.raises(bsa.MemoryOverlapError):
        make(array)


def test_a_heap_is_not_nested_in_itself(heap):
    block = heap.alloc(1 * MIB)
    with unchanged(heap), pytest.raises(bsa.MemoryOverlapError):
        heap.add_region(block)
    block.free()


# --- destructors ---


def test_blocks_may_go_after_their_allocator_was_closed(make):
    heap = make(1 * MIB)
    blocks = [heap.alloc(100) for _ in range(10)]
    memoryview(blocks[0]).release()
    blocks[1].free()
    blocks[2].detach()
    heap.close()
    del blocks
    assert heap.closed


def test_a_block_may_go_in_a_thread_pinned_to_a_slot_that_does_not_exist(heap):
    with bsa.cpu(0):
        blocks = [heap.alloc(100), heap.alloc(10_000)]
    with bsa.cpu(1000):
        blocks.clear()
    assert len(heap) == 0


def test_a_pending_exception_survives_the_destructor(heap):
    def fail():
        block = heap.alloc(100)
        view = memoryview(block)[:10]
        view.release()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert sys.exc_info() == (None, None, None)


def test_a_pending_exception_survives_the_destructor_of_the_last_user_of_a_region():
    def fail():
        heap = bsa.Allocator(bytearray(1 * MIB))
        block = heap.alloc(100)
        memoryview(block).release()
        heap.close()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()


def test_blocks_in_garbage_are_freed(heap):
    cycle = [heap.alloc(100)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert len(heap) == 0


def test_releasing_a_region_may_run_code_that_makes_blocks(heap):
    class Memory(bytearray):
        pass

    def make_block(reference):
        kept.append(heap.alloc(100))

    kept = []
    memory = Memory(1 * MIB)
    watch = weakref.ref(memory, make_block)
    block = bsa.Allocator(memory).alloc(10)
    memoryview(block).release()
    del memory
    assert watch() is not None
    del block
    assert watch() is None and len(kept) == 1


@pytest.mark.parametrize(
    "script",
    [
        "block = heap.alloc(100)",
        "block = heap.alloc(100); view = memoryview(block)",
        "import sys; sys.keep = [heap.alloc(100), memoryview(heap.alloc(10))]",
        "cycle = [heap.alloc(100)]; cycle.append(cycle)",
        "inner = bsa.Allocator(heap.alloc(100_000)); block = inner.alloc(10)",
        "import threading; threading.local().block = heap.alloc(10)",
        "import atexit; block = heap.alloc(10); atexit.register(block.free)",
        "block = heap.alloc(10); memoryview(block).release(); heap.close()",
        "import gc; gc.disable(); cycle = [heap, heap.alloc(10)]; cycle.append(cycle); del heap",
    ],
)
def test_the_interpreter_may_shut_down_with_live_blocks(script):
    assert in_child(f"import bsa\nheap = bsa.Allocator(1 << 20)\n{script}\nprint('ok')") == "ok\n"


# --- fork ---

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

IN_FORKED_CHILD = """
import mmap, os, warnings
import bsa
warnings.simplefilter("ignore")
{before}
pid = os.fork()
if pid == 0:
    try:
        {child}
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
{after}
"""


def forked(before, child, after="heap.check()"):
    in_child(IN_FORKED_CHILD.format(before=before, child=child, after=after))


@needs_fork
@pytest.mark.parametrize(
    "memory", ["1 << 20", "bytearray(1 << 20)", "mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE)"]
)
def test_an_allocator_over_private_memory_works_in_a_forked_child(memory):
    forked(
        f"heap = bsa.Allocator({memory}); block = heap.alloc_from(b'hello'); raw = heap.malloc(10)",
        "assert block[:] == b'hello'; block[:] = b'child'; block.free(); heap.free(raw); "
        "heap.alloc(100_000); heap.check(); assert len(heap) == 0; heap.close()",
        "assert block[:] == b'hello' and len(heap) == 2; heap.check()",
    )


@needs_fork
@pytest.mark.parametrize("operation", ["heap.alloc(10)", "heap.free(raw)", "len(heap)", "block[0]"])
def test_an_allocator_over_shared_memory_is_inert_in_a_forked_child(operation):
    forked(
        "heap = bsa.Allocator(mmap.mmap(-1, 1 << 20)); block = heap.alloc(10); raw = heap.malloc(9)",
        f"""
        try:
            {operation}
        except bsa.AllocError:
            os._exit(2)
        except RuntimeError:
            os._exit(0)
        os._exit(3)
        """.strip().replace(
            "\n        ", "\n        "
        ),
        "assert len(heap) == 2; heap.check()",
    )


@needs_fork
def test_destructors_do_nothing_to_shared_memory_in_a_forked_child():
    forked(
        "heap = bsa.Allocator(mmap.mmap(-1, 1 << 20)); blocks = [heap.alloc(10) for _ in range(9)]\n"
        "memoryview(blocks[0]).release()",
        "blocks.clear()",
        "assert len(heap) == 9 and len(list(heap.walk())) == 9; heap.check()",
    )


@needs_fork
def test_an_inert_allocator_can_be_closed():
    forked(
        "heap = bsa.Allocator(mmap.mmap(-1, 1 << 20)); block = heap.alloc(10)",
        "heap.close(); assert heap.closed and block.freed",
        "assert len(heap) == 1; block[0] = 1; heap.check()",
    )


@needs_fork
def test_a_heap_nested_in_shared_memory_is_inert_in_a_forked_child():
    forked(
        "outer = bsa.Allocator(mmap.mmap(-1, 1 << 20)); heap = bsa.Allocator(outer.alloc(1 << 18))",
        """
        try:
            heap.alloc(10)
        except RuntimeError:
            os._exit(0)
        os._exit(3)
        """.strip(),
        "heap.check(); outer.check()",
    )


# --- subinterpreters ---

IN_SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import bsa
heap = bsa.Allocator(1 << 20)
block = heap.alloc(10)
script = '''
import bsa
heap = bsa.Allocator(1 << 20)
keep = [heap.alloc(10), memoryview(heap.alloc(10))]
heap.check()
'''
for _ in range(3):
    try:
        other = interpreters.create("legacy")
    except TypeError:
        other = interpreters.create(isolated=False)
    failure = interpreters.run_string(other, script)
    assert failure is None, failure
    interpreters.destroy(other)
block.free()
heap.check()
print("ok")
"""


def test_an_allocator_works_in_a_subinterpreter():
    try:
        printed = in_child(IN_SUBINTERPRETER)
    except AssertionError as error:
        if "ModuleNotFoundError" in str(error):
            pytest.skip("no subinterpreters")
        raise
    assert printed == "ok\n"
