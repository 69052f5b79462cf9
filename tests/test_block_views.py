"""Blocks that are exported: views, consumers that keep the address, nested heaps.

Many tests here take all free memory and write over it (`overwrite`): a Block whose bytes had been handed out again too
early would then read them as 0xff, or corrupt a neighbour.
"""

import ctypes
import functools
import gc
import weakref

import pytest

import bsa
from helpers import KIB, MIB, exhaust, overwrite, peek, unchanged

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


def test_a_block_that_is_dropped_gives_back_what_its_resizes_parked(small):
    block = small.alloc(10)
    for size in (100, 1000, 10_000):
        memoryview(block).release()
        block.resize(size)
    del block
    assert list(small.walk()) == [] and small.stats().parked_bytes == 0
    small.check()


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


def test_of_several_buffers_that_of_the_exported_block_stays(make):
    memories = [bytearray(64 * KIB) for _ in range(3)]
    heap = make(memories[0])
    for memory in memories[1:]:
        heap.add_region(memory)
    blocks = exhaust(heap.alloc, 1000)
    block = next(block for block in blocks if block.section is heap.sections[1])
    memoryview(block).release()
    heap.close()
    for memory in (memories[0], memories[2]):
        memory.append(0)
    with pytest.raises(BufferError):
        memories[1].append(0)


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


def test_the_memory_of_a_block_that_is_dropped_waits_for_the_heaps_nested_in_it(heap, make):
    half = ctypes.c_char * (512 * KIB)  # at a raw address: these arrays keep no Block alive
    block = heap.alloc(1 * MIB)
    address = block.address
    first = make(half.from_address(address))
    del block
    second = make(half.from_address(address + 512 * KIB))
    for inner in (first, second):
        inner.free(inner.malloc(10_000))
        assert list(heap.walk()) == [(address, 1 * MIB, "block")]
        with unchanged(heap), pytest.raises(bsa.InvalidParamError):
            heap.free(address)
        with pytest.raises(bsa.InUseError):
            heap.close()
        inner.close()
    assert len(heap) == 0
    heap.check()


class Holder(bsa.Allocator):
    """An allocator with a dictionary."""


def test_a_cycle_through_a_block_that_only_a_nested_heap_keeps_is_collected():
    outer = Holder(1 * MIB, cpus=1)
    block = outer.alloc(64 * KIB)
    memory = (ctypes.c_ubyte * block.size).from_address(block.address)
    outer.inner = Holder(memory, page_size=256, cpus=1)
    seen = weakref.ref(outer)
    del block
    gc.collect()
    assert seen() is outer
    del outer
    gc.collect()
    assert seen() is None


def test_a_cycle_through_a_block_of_a_heap_nested_in_a_block_is_collected():
    np = pytest.importorskip("numpy")
    outer = bsa.Allocator(1 * MIB, cpus=1)
    block = outer.alloc(64 * KIB)
    memory = (ctypes.c_ubyte * block.size).from_address(block.address)
    memory = np.ctypeslib.as_array(memory)  # the collector does not know arrays
    inside = bsa.Allocator(memory, page_size=256, cpus=1).alloc(100)
    outer.on_oom = functools.partial(print, inside)
    seen = weakref.ref(outer)
    del block, memory, inside
    gc.collect()
    assert seen() is outer
    del outer
    gc.collect()
    assert seen() is None


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
