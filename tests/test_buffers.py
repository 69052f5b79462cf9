"""What a heap can be made of: every kind of writable buffer, and what is refused."""

import array
import collections
import ctypes
import gc
import mmap
import sys
import weakref
from multiprocessing import shared_memory

import pytest

import bsa
from helpers import KIB, MIB, Index, address_of, aligned, unchanged

SIZE = 1 * MIB


class Kind:
    """A buffer, and how to read its bytes, to enlarge and to release it."""

    def __init__(self, buffer, read=None, close=None):
        self.buffer = buffer
        self.read = read or (lambda start, stop: bytes(memoryview(buffer).cast("B")[start:stop]))
        self.close = close or (lambda: None)


def a_bytearray(tmp_path):
    buffer = bytearray(SIZE)
    return Kind(buffer, lambda start, stop: bytes(buffer[start:stop]))


def an_anonymous_mapping(tmp_path):
    memory = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return Kind(memory, lambda start, stop: memory[start:stop], memory.close)


def a_shared_mapping(tmp_path):
    memory = mmap.mmap(-1, SIZE, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    return Kind(memory, lambda start, stop: memory[start:stop], memory.close)


def a_mapped_file(tmp_path):
    path = tmp_path / "heap"
    path.write_bytes(bytes(SIZE))
    with open(path, "r+b") as file:
        memory = mmap.mmap(file.fileno(), SIZE)

    def read(start, stop):
        memory.flush()
        return path.read_bytes()[start:stop]

    return Kind(memory, read, memory.close)


def shared(tmp_path):
    memory = shared_memory.SharedMemory(create=True, size=SIZE)

    def close():
        memory.close()
        memory.unlink()

    return Kind(memory.buf, lambda start, stop: bytes(memory.buf[start:stop]), close)


def an_array(tmp_path):
    return Kind(array.array("d", bytes(SIZE)))


def a_ctypes_array(tmp_path):
    buffer = (ctypes.c_uint16 * (SIZE // 2))()
    return Kind(buffer, lambda start, stop: bytes(buffer)[start:stop])


def a_ctypes_structure(tmp_path):
    class Record(ctypes.Structure):
        _fields_ = [("head", ctypes.c_int), ("rest", ctypes.c_char * (SIZE - 4))]

    buffer = Record()
    return Kind(buffer, lambda start, stop: bytes(buffer)[start:stop])


def a_numpy_array(tmp_path):
    np = pytest.importorskip("numpy")
    buffer = np.zeros(SIZE, np.uint8)
    return Kind(buffer, lambda start, stop: buffer[start:stop].tobytes())


def a_numpy_array_of_three_dimensions(tmp_path):
    np = pytest.importorskip("numpy")
    buffer = np.zeros((4, 8, SIZE // 256), np.float64)
    return Kind(buffer, lambda start, stop: buffer.tobytes()[start:stop])


def a_numpy_structured_array(tmp_path):
    np = pytest.importorskip("numpy")
    buffer = np.zeros(SIZE // 8, dtype=[("Offset", "i4"), ("y", "f4")])
    return Kind(buffer, lambda start, stop: buffer.tobytes()[start:stop])


def a_memoryview(tmp_path):
    buffer = memoryview(bytearray(SIZE))
    return Kind(buffer)


KINDS = [
    a_bytearray,
    an_anonymous_mapping,
    a_shared_mapping,
    a_mapped_file,
    shared,
    an_array,
    a_ctypes_array,
    a_ctypes_structure,
    a_numpy_array,
    a_numpy_array_of_three_dimensions,
    a_numpy_structured_array,
    a_memoryview,
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request, tmp_path):
    kind = request.param(tmp_path)
    yield kind
    kind.buffer = None
    kind.close()


def test_what_is_written_through_a_block_is_read_through_the_buffer(kind):
    with bsa.Allocator(kind.buffer) as heap:
        for text in (b"hello", b"x" * 5000, b"y" * 100_000):
            block = heap.alloc_from(text)
            assert kind.read(block.offset, block.offset + block.size) == text
        heap.check()


def test_the_section_knows_its_buffer(kind):
    with bsa.Allocator(kind.buffer) as heap:
        section = heap.sections[0]
        assert section.buffer is kind.buffer
        assert section.region_start == address_of(kind.buffer)
        assert section.region_size == SIZE


def test_a_region_is_added_from_any_buffer(kind, make):
    heap = make(64 * KIB)
    section = heap.add_region(kind.buffer)
    block = heap.alloc_from(b"x" * 100_000)
    assert block.section is section
    assert kind.read(block.offset, block.offset + 3) == b"xxx"
    del block
    heap.remove_region(section)


@pytest.mark.parametrize("offset", [0, 1, 7, 64, 4095, 4096, 5000])
def test_a_slice_at_any_offset_is_a_region(make, offset):
    memory = bytearray(SIZE)
    heap = make(memoryview(memory)[offset:])
    block = heap.alloc_from(b"hello")
    start = offset + block.offset
    assert memory[start : start + 5] == b"hello"


def test_the_bytes_around_a_region_are_left_alone(make):
    memory = bytearray(b"\xee" * SIZE)
    with bsa.Allocator(memoryview(memory)[100:-77]) as heap:
        heap.alloc_pages(1)[:] = b"x" * 4096
        blocks = [heap.alloc(size, zero=True) for size in (10, 1000, 10_000)]
        assert memory[:100] == b"\xee" * 100 and memory[-77:] == b"\xee" * 77
        del blocks


# --- exported until released ---


def test_a_bytearray_cannot_be_resized_while_it_is_managed():
    memory = bytearray(SIZE)
    with bsa.Allocator(memory):
        for resize in (lambda: memory.append(0), lambda: memory.clear()):
            with pytest.raises(BufferError):
                resize()
    memory.append(0)


def test_a_bytearray_can_be_resized_once_its_section_is_removed(heap):
    memory = bytearray(SIZE)
    section = heap.add_region(memory)
    with pytest.raises(BufferError):
        memory.append(0)
    heap.remove_region(section)
    memory.append(0)


def test_a_mapping_cannot_be_closed_while_it_is_managed():
    memory = mmap.mmap(-1, SIZE)
    with bsa.Allocator(memory):
        with pytest.raises(BufferError):
            memory.close()
    memory.close()


def test_shared_memory_cannot_be_closed_while_it_is_managed():
    memory = shared_memory.SharedMemory(create=True, size=SIZE)
    try:
        with bsa.Allocator(memory.buf):
            with pytest.raises(BufferError):
                memory.close()
        memory.close()
    finally:
        memory.unlink()


def test_a_view_cannot_be_released_while_it_is_managed():
    view = memoryview(bytearray(SIZE))
    with bsa.Allocator(view):
        with pytest.raises(BufferError):
            view.release()
    view.release()


class Memory(bytearray):
    """A bytearray that can be watched."""


def test_a_buffer_lives_as_long_as_it_is_managed():
    memory = Memory(SIZE)
    watch = weakref.ref(memory)
    with bsa.Allocator(memory) as heap:
        del memory
        assert heap.alloc_from(b"hello")[:] == b"hello"
        assert watch() is not None
    assert watch() is None


def test_a_buffer_is_released_when_its_allocator_goes():
    memory = Memory(SIZE)
    watch = weakref.ref(memory)
    heap = bsa.Allocator(memory)
    heap.malloc(10)
    del memory, heap
    assert watch() is None


def test_a_removed_section_releases_its_buffer(heap):
    memory = Memory(SIZE)
    watch = weakref.ref(memory)
    section = heap.add_region(memory)
    del memory
    heap.remove_region(section)
    assert watch() is None


def test_references_to_a_buffer_are_balanced():
    memory = bytearray(SIZE)
    before = sys.getrefcount(memory)
    for _ in range(10):
        with bsa.Allocator(memory) as heap:
            heap.sections[0].buffer
            memoryview(heap.alloc(10)).release()
    assert sys.getrefcount(memory) == before


# --- refusals ---


def refused(heap, buffer, error):
    """The buffer is refused with the error, as a first and as a further region, and is not kept."""
    with pytest.raises(error) as first:
        bsa.Allocator(buffer)
    with unchanged(heap), pytest.raises(error):
        heap.add_region(buffer)
    return first.value


@pytest.mark.parametrize(
    "buffer",
    [
        pytest.param(bytes(SIZE), id="bytes"),
        pytest.param(memoryview(bytes(SIZE)), id="view of bytes"),
        pytest.param(memoryview(bytearray(SIZE)).toreadonly(), id="read-only view"),
        pytest.param(memoryview(bytearray(SIZE))[::2], id="every second byte"),
        pytest.param(memoryview(bytearray(SIZE))[::-1], id="backwards"),
    ],
)
def test_read_only_and_strided_buffers_are_a_buffer_error(heap, buffer):
    error = refused(heap, buffer, BufferError)
    assert error.__cause__ is not None


def test_a_mapping_for_reading_is_a_buffer_error(heap):
    with mmap.mmap(-1, SIZE, access=mmap.ACCESS_READ) as memory:
        refused(heap, memory, BufferError)


def test_numpy_arrays_that_are_read_only_or_not_contiguous_are_a_buffer_error(heap):
    np = pytest.importorskip("numpy")
    frozen = np.zeros(SIZE, np.uint8)
    frozen.flags.writeable = False
    for buffer in (
        frozen,
        np.zeros((512, 512), order="F"),
        np.zeros(SIZE)[::2],
        np.zeros((100, 100))[:, 1:],
        np.broadcast_to(np.zeros(1, np.uint8), SIZE),
    ):
        error = refused(heap, buffer, BufferError)
        assert error.__cause__ is not None


def test_a_numpy_array_whose_type_has_no_buffer_is_a_buffer_error(heap):
    np = pytest.importorskip("numpy")
    error = refused(heap, np.zeros(SIZE, "M8[s]"), BufferError)
    assert isinstance(error.__cause__, ValueError)


def test_buffers_of_objects_are_a_type_error(heap):
    refused(heap, (ctypes.py_object * 10_000)(), TypeError)
    np = pytest.importorskip("numpy")
    for dtype in (object, [("number", "i8"), ("thing", "O")]):
        array_of_objects = np.zeros(10_000, dtype=dtype)
        refused(heap, array_of_objects, TypeError)


@pytest.mark.parametrize("wrong", ["x", 1.5, 1 + 2j, [0] * 100, {}, object(), print])
def test_what_is_neither_buffer_nor_size_is_a_type_error(heap, wrong):
    refused(heap, wrong, TypeError)


@pytest.mark.parametrize("size", [0, 1, 64, 4095, 4096, 4097, 8191])
def test_too_small_a_region_is_invalid(heap, size):
    refused(heap, bytearray(size), bsa.InvalidParamError)
    refused(heap, size, bsa.InvalidParamError)


def test_the_smallest_region_is_metadata_and_one_page(make):
    smallest = next(size for size in range(4096, SIZE, 4096) if fits(aligned(size)))
    heap = make(aligned(smallest))
    assert heap.total_pages == 1
    with heap.alloc(10) as block:
        assert block.size == 10
    heap.trim()
    assert heap.alloc_pages(1).size == 4096
    assert not fits(aligned(smallest - 1))


def fits(memory):
    try:
        bsa.Allocator(memory).close()
    except bsa.InvalidParamError:
        return False
    return True


@pytest.mark.parametrize("cut", [(1, 0), (0, 1), (4095, 0), (1, 4094), (2000, 2000)])
def test_an_unaligned_region_loses_no_more_than_its_parts_of_pages(make, cut):
    before, after = cut
    memory = aligned(1 * MIB + 4096, align=4096)
    pages = make(memory[: 1 * MIB]).total_pages
    heap = make(aligned(1 * MIB + 2 * 4096, align=4096)[4096 - before : 4096 + 1 * MIB + after])
    assert heap.sections[0].start % 4096 == 0
    assert heap.total_pages == pages


@pytest.mark.parametrize(
    "size, error",
    [
        (-1, bsa.InvalidParamError),
        (-(1 << 64), bsa.InvalidParamError),
        (1 << 63, bsa.OutOfMemoryError),
        ((1 << 63) - 1, bsa.OutOfMemoryError),
        ((1 << 64) - 1, bsa.OutOfMemoryError),
        ((1 << 64) - 4096, bsa.OutOfMemoryError),
        (1 << 64, OverflowError),
        (1 << 100, OverflowError),
    ],
)
def test_sizes_that_no_memory_can_have_are_refused(heap, size, error):
    refused(heap, size, error)
    refused(heap, Index(size, lambda: None), error)


def test_a_failed_mapping_says_how_much_was_asked_for(heap):
    error = refused(heap, 1 << 63, bsa.OutOfMemoryError)
    assert error.requested == 1 << 63


def test_an_object_that_gives_a_read_only_buffer_and_an_index_is_a_size(make):
    np = pytest.importorskip("numpy")
    number = np.int64(1 * MIB)
    assert memoryview(number).readonly
    assert make(number).sections[0].buffer is None


class Slot(ctypes.Structure):
    _fields_ = [("number", ctypes.c_int), ("function", ctypes.c_void_p)]


class Spec(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("size", ctypes.c_int),
        ("item_size", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(Slot)),
    ]


def nobodys_buffer(size):
    """A buffer that is no object's (obj is NULL), as exporters in Cython may give it; and what to keep."""
    memory = ctypes.create_string_buffer(size)
    fill = ctypes.pythonapi.PyBuffer_FillInfo
    fill.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_ssize_t, ctypes.c_int, ctypes.c_int]

    def export(exporter, view, flags):
        return fill(view, None, ctypes.addressof(memory), size, 0, flags)

    Export = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
    function = Export(export)
    slots = (Slot * 2)(Slot(1, ctypes.cast(function, ctypes.c_void_p)), Slot(0, None))
    spec = Spec(b"test.Nobodys", object.__basicsize__, 0, 1 << 18, slots)
    make_type = ctypes.pythonapi.PyType_FromSpec
    make_type.restype = ctypes.py_object
    return make_type(ctypes.byref(spec))(), [memory, function, slots]


def test_a_buffer_that_is_no_objects_is_a_region(make):
    exporter, keep = nobodys_buffer(1 * MIB)
    assert memoryview(exporter).nbytes == 1 * MIB
    heap = make(exporter)
    assert heap.sections[0].buffer is exporter
    block = heap.alloc_from(b"hello")
    assert keep[0].raw[block.offset : block.offset + 5] == b"hello"
    heap.check()
    heap.close()


def test_an_array_of_one_number_is_a_buffer(heap):
    np = pytest.importorskip("numpy")
    refused(heap, np.array(1 * MIB), bsa.InvalidParamError)


def test_a_refused_buffer_is_not_kept(heap):
    memory = Memory(100)
    watch = weakref.ref(memory)
    for request in (bsa.Allocator, heap.add_region):
        with pytest.raises(bsa.InvalidParamError):
            request(memory)
    memory.append(0)
    del memory
    assert watch() is None


# --- overlap ---


def cuts(start, stop):
    """Regions that share bytes with start:stop of a buffer of 16 times 64 KiB."""
    end = 16 * 64 * KIB
    return {
        "the same": (start, stop),
        "its first byte": (0, start + 1),
        "its last byte": (stop - 1, end),
        "inside": (start + 64 * KIB, stop - 64 * KIB),
        "around": (0, end),
        "too small": (start, start + 1),
    }


@pytest.mark.parametrize("name", cuts(0, 0))
@pytest.mark.parametrize("same", [True, False])
def test_a_region_that_shares_a_byte_overlaps(make, name, same):
    memory = bytearray(16 * 64 * KIB)
    start, stop = 4 * 64 * KIB, 12 * 64 * KIB
    heap = make(memoryview(memory)[start:stop])
    heap.alloc_from(b"hello")
    low, high = cuts(start, stop)[name]
    other = heap if same else make(64 * KIB)
    before = bytes(memory)
    with unchanged(heap, other), pytest.raises(bsa.MemoryOverlapError):
        other.add_region(memoryview(memory)[low:high])
    assert memory == before


@pytest.mark.parametrize("same", [True, False])
def test_regions_may_touch(make, same):
    memory = memoryview(bytearray(3 * 64 * KIB))
    middle = make(memory[64 * KIB : 128 * KIB])
    for low, high in ((0, 64 * KIB), (128 * KIB, 192 * KIB)):
        other = middle if same else make()
        other.add_region(memory[low:high])
    assert middle.total_pages > 0


def test_a_region_overlaps_no_longer_once_it_is_removed_or_closed(make):
    memory = bytearray(1 * MIB)
    first, second = make(64 * KIB), make(64 * KIB)
    section = first.add_region(memory)
    with pytest.raises(bsa.MemoryOverlapError):
        second.add_region(memory)
    first.remove_region(section)
    second.add_region(memory)
    with pytest.raises(bsa.MemoryOverlapError):
        first.add_region(memory)
    second.close()
    first.add_region(memory)


def test_the_same_file_mapped_twice_is_two_regions(make, tmp_path):
    """Only addresses are compared: what a file holds is its owner's business."""
    path = tmp_path / "heap"
    path.write_bytes(bytes(SIZE))
    with open(path, "r+b") as file:
        first, second = (mmap.mmap(file.fileno(), SIZE, mmap.MAP_PRIVATE) for _ in range(2))
    make(first)
    make(second)


# --- hooks that do something else ---


def test_an_index_that_closes_the_allocator_adds_no_region(make):
    heap = make(64 * KIB)
    with pytest.raises(bsa.ClosedError):
        heap.add_region(Index(1 * MIB, heap.close))


def test_an_index_that_adds_a_region_adds_both(make):
    heap = make()
    heap.add_region(Index(1 * MIB, lambda: heap.add_region(64 * KIB)))
    assert [section.region_size for section in heap.sections] == [64 * KIB, 1 * MIB]


def test_what_an_index_raises_propagates(heap):
    def fail():
        raise KeyError("mine")

    with unchanged(heap), pytest.raises(KeyError, match="mine"):
        heap.add_region(Index(1, fail))


def test_a_phys_that_closes_the_allocator_adds_no_region(make):
    heap = make(64 * KIB)
    memory = bytearray(SIZE)
    with pytest.raises(bsa.ClosedError):
        heap.add_region(memory, phys=Index(0, heap.close))
    memory.append(0)


needs_hooks = pytest.mark.skipif(sys.version_info < (3, 12), reason="no __buffer__")


class Hook:
    """A buffer whose hooks do something first; its exports are counted."""

    def __init__(self, memory, get=lambda: None, release=lambda: None):
        self.memory, self.get, self.release = memory, get, release
        self.count = collections.Counter()

    def __buffer__(self, flags):
        self.get()
        self.count["exported"] += 1
        return memoryview(self.memory)

    def __release_buffer__(self, view):
        self.release()
        self.count["released"] += 1
        view.release()


@needs_hooks
def test_an_object_with_a_buffer_method_is_a_region():
    hook = Hook(bytearray(SIZE))
    with bsa.Allocator(hook) as heap:
        block = heap.alloc_from(b"hello")
        assert hook.memory[block.offset : block.offset + 5] == b"hello"
        assert heap.sections[0].buffer is hook
        del block
    assert hook.count == {"exported": 1, "released": 1}


class View(bytearray):
    def __buffer__(self, flags):
        return super().__buffer__(flags)


@needs_hooks
def test_garbage_whose_buffer_method_gave_a_view_is_collected_in_any_order():
    hook = View(SIZE)
    younger = [bsa.Allocator(hook)]  # than the view: so that is cleared first
    younger.append(younger)
    hook.younger = younger
    del hook, younger
    gc.collect()  # up to 3.12.6 such views cannot be cleared; then all this stays


@needs_hooks
def test_a_buffer_hook_that_closes_the_allocator_adds_no_region(make):
    heap = make(64 * KIB)
    hook = Hook(bytearray(SIZE), get=heap.close)
    with pytest.raises(bsa.ClosedError):
        heap.add_region(hook)
    assert hook.count == {"exported": 1, "released": 1}


@needs_hooks
def test_a_buffer_hook_that_adds_the_same_memory_makes_it_overlap(make):
    heap = make(64 * KIB)
    memory = bytearray(SIZE)
    hook = Hook(memory, get=lambda: heap.add_region(memory))
    with pytest.raises(bsa.MemoryOverlapError):
        heap.add_region(hook)
    assert len(heap.sections) == 2


@needs_hooks
def test_what_a_buffer_hook_raises_is_the_cause_of_a_buffer_error(heap):
    def fail():
        raise KeyError("mine")

    error = refused(heap, Hook(bytearray(SIZE), get=fail), BufferError)
    assert isinstance(error.__cause__, KeyError)


@needs_hooks
def test_a_release_hook_may_use_the_closed_allocator_and_its_memory(make):
    heap = make()
    memory = bytearray(SIZE)
    seen = []

    def use():
        seen.append(heap.closed)
        bsa.Allocator(memory).close()
        heap.close()

    heap.add_region(Hook(memory, release=use))
    heap.add_region(1 * MIB)
    heap.close()
    assert seen == [True]


@needs_hooks
def test_a_release_hook_may_use_the_allocator_its_region_is_removed_from(make):
    heap = make(1 * MIB)
    section = heap.add_region(
        Hook(bytearray(SIZE), release=lambda: heap.add_region(64 * KIB) and heap.close())
    )
    heap.remove_region(section)
    assert heap.closed


@needs_hooks
@pytest.mark.parametrize("action", ["close", "free"])
def test_a_buffer_hook_may_end_the_block_that_is_assigned_to(make, action):
    heap = make(1 * MIB)
    block = heap.alloc(5)
    end = heap.close if action == "close" else block.free
    with pytest.raises(ValueError):
        block[:] = Hook(bytearray(b"hello"), get=end)
    with pytest.raises(ValueError):
        heap.alloc_from(Hook(bytearray(b"hello"), get=heap.close))


@needs_hooks
def test_a_release_hook_may_free_the_block_that_was_assigned_to(heap):
    block = heap.alloc(5)
    block[:] = Hook(bytearray(b"hello"), release=block.free)
    assert block.freed


@needs_hooks
def test_a_buffer_hook_that_closes_the_allocator_frees_nothing(make):
    heap = make(1 * MIB)
    with pytest.raises(bsa.ClosedError):
        heap.free_many(Hook(array.array("Q", heap.malloc_many(3, 10)), get=heap.close))
