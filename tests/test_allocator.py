"""Allocators: the interface, making, identity, closing, and code that runs in the middle."""

import contextlib
import copy
import ctypes
import gc
import inspect
import os
import pickle
import sysconfig
import threading
import weakref

import pytest

import bsa
from helpers import GIB, KIB, MIB, in_child, unchanged

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


class Keeper(list):
    """What an allocator refers to in one way or another, and what refers to a Block of it."""

    def call(self, *ignored):
        return False


class Attributes(bytearray):
    pass


class Subclass(bsa.Allocator):
    pass


def by_callback(heap, keeper):
    heap.on_oom = keeper.call


def by_translation(heap, keeper):
    heap.add_region(1 * MIB, phys=keeper.call)


def by_exporter(heap, keeper):
    memory = Attributes(1 * MIB)
    memory.keeper = keeper
    heap.add_region(memory)


def freed(block):
    block.free()


def exported_and_freed(block):
    memoryview(block).release()
    block.free()


def moved(block):
    memoryview(block).release()
    block.resize(10_000)


def detached(block):
    block.detach()


def left_alone(block):
    pass


@pytest.mark.parametrize("what", [left_alone, freed, exported_and_freed, moved, detached])
@pytest.mark.parametrize("lead_back", [by_callback, by_translation, by_exporter])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cycle_through_a_block_is_collected_however_late_it_is_closed(what, lead_back, when):
    def make_cycle():
        heap, keeper = bsa.Allocator(1 * MIB), Keeper()
        if when == "before":
            lead_back(heap, keeper)
        keeper += [heap.alloc(100), heap.block(heap.malloc(100))]
        for block in keeper:
            what(block)
        if when == "after":
            lead_back(heap, keeper)
        return [heap, keeper]

    assert collected(make_cycle)


def test_a_cycle_through_an_attribute_of_an_allocator_is_collected():
    def make_cycle():
        heap = Subclass(1 * MIB)
        heap.block = heap.alloc(100)
        return [heap]

    assert collected(make_cycle)


def test_blocks_that_can_be_in_no_cycle_are_no_work_for_the_collector():
    always = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    for buffer in (1 * MIB, bytearray(1 * MIB)):
        heap = bsa.Allocator(buffer)
        block = heap.alloc(100)
        memoryview(block).release()
        assert gc.is_tracked(block) == always
        heap.on_oom = Keeper().call
        assert gc.is_tracked(block) and gc.is_tracked(heap.alloc(100))


def test_dead_blocks_that_keep_memory_stay_out_of_the_way_of_the_collector():
    heap = bsa.Allocator(1 * MIB)
    block = heap.alloc(64 * KIB)
    memory = (ctypes.c_char * block.size).from_address(block.address)  # keeps no Block alive
    inner = bsa.Allocator(memory)
    del block
    heap.on_oom = Keeper().call
    blocks = [thing for thing in gc.get_objects() if isinstance(thing, bsa.Block)]
    assert heap not in [block.allocator for block in blocks]
    assert len(heap) == 1
    inner.close()
    gc.collect()
    assert len(heap) == 0


def test_a_cycle_through_nested_allocators_is_collected():
    def make_cycle():
        outer = bsa.Allocator(1 * MIB)
        inner = bsa.Allocator(outer.alloc(100_000))
        outer.on_oom = lambda allocator, size: inner
        return [outer, inner]

    assert collected(make_cycle)


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
