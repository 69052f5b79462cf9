"""Every public call of the C types, once in its good way and in its wrong ways, upon a heap with something of everything.

For tests that repeat all calls under some strain: without memory, or counting references.
"""

import ctypes
import gc
import struct
from array import array

import bsa
from bsa import _core
from helpers import KIB, MIB

PAGE = 4096
SIZE = 256 * KIB
Chars = ctypes.c_char * SIZE


class Scene:
    """Heaps with something of everything in them, and what belongs to them."""

    def __init__(self):
        self.region = bytearray(SIZE)
        self.spare = bytearray(SIZE)
        self.heap = heap = bsa.Allocator(self.region, cpus=2, phys=0)
        self.full = bsa.Allocator(64 * KIB, cpus=1, on_oom=self.on_oom)
        self.wish = self.full.largest_free * 2
        self.answer = False
        self.block = heap.alloc(100)
        self.large = heap.alloc(8 * PAGE)
        self.exported = heap.alloc(200)
        self.view = memoryview(self.exported)
        self.parked = heap.alloc(300)
        memoryview(self.parked).release()
        self.parked.free()
        self.freed = heap.alloc(10)
        self.freed.free()
        self.raw, self.gone, self.pages = heap.malloc(64), heap.malloc(64), heap.malloc(3 * PAGE)
        heap.free(self.gone)
        bsa.set_cpu(1)
        self.remote = heap.malloc(64)  # a slab of the other slot
        bsa.set_cpu(None)
        self.closed = bsa.Allocator(SIZE, cpus=1)
        self.orphan = self.closed.alloc(10)
        self.closed.close()
        self.section, self.slab = heap.sections[0], heap.slab_of(self.raw)
        self.added = heap.add_region(SIZE)
        self.walk = heap.walk()

    def on_oom(self, heap, size):
        return self.answer() if callable(self.answer) else self.answer

    def settings(self):
        """What a refused call must leave alone, besides what is in the heap."""
        heap = self.heap
        return (heap.limit, heap.on_oom, heap.closed, bsa.current_cpu(), self.block.size)

    def expect_no_export(self):
        """Nobody holds a buffer but those who should."""
        self.spare.append(0)
        self.spare.pop()

    def close(self):
        """Nothing is pinned: all can be closed, and the buffer is free again."""
        bsa.set_cpu(None)
        self.view.release()
        self.block = self.large = self.exported = self.parked = self.walk = None
        for heap in (self.heap, self.full):
            heap.close()
        self.region.append(0)
        self.expect_no_export()


def fails(answer):
    """A request that fails, with an on_oom that answers so."""

    def call(scene):
        scene.answer = answer(scene) if callable(answer) else answer
        return scene.full.alloc(scene.wish)

    return call


def exit_block(scene):
    with scene.block:
        pass


def exit_heap(scene):
    with bsa.Allocator(64 * KIB) as heap:
        return heap


def many_zeros(scene):
    """So many that other threads may run meanwhile."""
    with bsa.Allocator(4 * MIB, cpus=1) as heap:
        heap.alloc(1 * MIB, zero=True)
        heap.free(heap.malloc(1 * MIB, zero=True))


class Address(int):
    """Like an int, but none of the very type."""


def set_attribute(name, value):
    return lambda s: setattr(s.heap, name, value)


def set_item(key, value):
    def call(scene):
        scene.block[key] = value

    return call


def drop(name):
    """The last reference goes."""
    return lambda s: setattr(s, name, None)


def lowmem_through(phys):
    """Low memory of a section whose addresses are translated so."""

    def call(scene):
        heap = bsa.Allocator(cpus=1)
        heap.add_region(SIZE, phys=phys)
        try:
            return heap.alloc_pages_lowmem(2)
        finally:
            heap.check()

    return call


ROWS = [(bsa.TraceOp.ALLOC, 0, 100), (bsa.TraceOp.REALLOC, 0, 300), (bsa.TraceOp.FREE, 0, 0)]


def trace(*rows):
    return bsa.Trace.from_events([(*row, 0, 0) for row in rows or ROWS])


def replay(*rows, progress=None):
    def call(scene):
        with bsa.Allocator(SIZE, cpus=1) as heap:
            return bsa.replay(trace(*rows), heap, samples=2, progress=progress)

    return call


TEXT = b"1: malloc 0x10 100\n1: realloc 0x20 0x10 200\n2: free 0x20\n"
RECORDING = struct.pack("=8sIIiIQQ", b"BSA\x1arec\n", 1, 0x01020304, 1, 0, 1, 65536 + 24)
RECORDING += bytes(65536 - len(RECORDING)) + struct.pack("=QQQ", 0x10, 100, 1)

# --- the good ways ---

GOOD = {
    "Allocator": lambda s: bsa.Allocator(SIZE, cpus=2, phys=0, limit=SIZE, on_oom=print),
    "Allocator of nothing": lambda s: bsa.Allocator(),
    "Allocator of a bytearray": lambda s: bsa.Allocator(s.spare),
    "Allocator of a memoryview": lambda s: bsa.Allocator(memoryview(s.spare)),
    "Allocator of a ctypes array": lambda s: bsa.Allocator(Chars()),
    "Allocator of an array": lambda s: bsa.Allocator(array("d", bytes(SIZE))),
    "Allocator of a Block": lambda s: bsa.Allocator(s.large),
    "Allocator.__bool__": lambda s: bool(s.heap),
    "Allocator.__contains__": lambda s: (s.raw in s.heap, s.gone in s.heap, s.large in s.heap),
    "Allocator.__enter__, __exit__": exit_heap,
    "Allocator.__len__": lambda s: len(s.heap),
    "Allocator.__repr__": lambda s: (repr(s.heap), repr(s.closed)),
    "Allocator._repr_html_": lambda s: s.heap._repr_html_(),
    "Allocator.add_region": lambda s: s.heap.add_region(SIZE),
    "Allocator.add_region of a buffer": lambda s: s.heap.add_region(s.spare, phys=abs),
    "Allocator.alloc": lambda s: s.heap.alloc(50),
    "Allocator.alloc of zeros": lambda s: s.heap.alloc(5000, 64, zero=True),
    "Allocator.alloc of many zeros": many_zeros,
    "Allocator.alloc_from": lambda s: s.heap.alloc_from(b"some bytes"),
    "Allocator.alloc_pages": lambda s: s.heap.alloc_pages(3, 2 * PAGE, exact=True),
    "Allocator.alloc_pages_lowmem": lambda s: s.heap.alloc_pages_lowmem(2),
    "Allocator.alloc_pages_lowmem, phys": lowmem_through(lambda address: 0),
    "Allocator.block": lambda s: s.heap.block(s.raw),
    "Allocator.check": lambda s: s.heap.check(),
    "Allocator.close": lambda s: s.full.close(),
    "Allocator.dealloc_pages": lambda s: s.heap.dealloc_pages(s.pages, 3),
    "Allocator.extfrag_index": lambda s: s.heap.extfrag_index(3),
    "Allocator.free": lambda s: s.heap.free(s.raw),
    "Allocator.free of a Block": lambda s: s.heap.free(s.block),
    "Allocator.free of another slot's": lambda s: s.heap.free(s.remote),
    "Allocator.free_blocks": lambda s: s.heap.free_blocks(),
    "Allocator.free_many": lambda s: s.heap.free_many([s.raw, s.remote, s.pages]),
    "Allocator.free_many of an array": lambda s: s.heap.free_many(array("Q", [s.pages, s.raw])),
    "Allocator.limit = ": set_attribute("limit", SIZE),
    "Allocator.on_oom = ": set_attribute("on_oom", print),
    "Allocator.malloc": lambda s: s.heap.malloc(3000, 128, zero=True),
    "Allocator.malloc_many": lambda s: s.heap.malloc_many(50, 100),
    "Allocator.page_state": lambda s: s.heap.page_state(s.raw),
    "Allocator.realloc": lambda s: s.heap.realloc(s.raw, 5000),
    "Allocator.realloc in place": lambda s: s.heap.realloc(s.pages, 2 * PAGE),
    "Allocator.realloc of pages": lambda s: s.heap.realloc(s.pages, 9 * PAGE),
    "Allocator.realloc of what is like an int": lambda s: s.heap.realloc(Address(s.raw), 9),
    "Allocator.remove_region": lambda s: s.heap.remove_region(s.added),
    "Allocator.reset_peak": lambda s: s.heap.reset_peak(),
    "Allocator.section_of": lambda s: s.heap.section_of(s.raw),
    "Allocator.slab_of": lambda s: (s.heap.slab_of(s.raw), s.heap.slab_of(s.pages)),
    "Allocator.slabs": lambda s: (s.heap.slabs(), s.heap.slabs(64)),
    "Allocator.stats": lambda s: s.heap.stats(),
    "Allocator.trim": lambda s: s.heap.trim(),
    "Allocator.unusable_index": lambda s: s.heap.unusable_index(2),
    "Allocator.usable_size": lambda s: s.heap.usable_size(s.pages),
    "Allocator.walk": lambda s: list(s.heap.walk()),
    "Block.__delitem__, __setitem__": set_item(5, 7),
    "Block[i:j] = ": set_item(slice(0, 10), bytes(10)),
    "Block[i:j:k] = ": set_item(slice(0, 100, 5), bytes(20)),
    "Block.__enter__, __exit__": exit_block,
    "Block.__getitem__": lambda s: (s.block[0], s.block[-1], s.block[2:7], s.block[::3]),
    "Block.__len__": lambda s: len(s.block),
    "Block.__repr__": lambda s: (repr(s.block), repr(s.freed), repr(s.orphan)),
    "Block.__buffer__, __release_buffer__": lambda s: memoryview(s.block),
    "Block.detach": lambda s: s.block.detach(),
    "Block.free": lambda s: s.block.free(),
    "Block.resize": lambda s: s.block.resize(90),
    "Block.resize to pages": lambda s: s.block.resize(3 * PAGE),
    "Block.resize, once exported": lambda s: (memoryview(s.large).release(), s.large.resize(9)),
    "Block, dropped": drop("block"),
    "Block, dropped once exported": drop("parked"),
    "Section.__repr__": lambda s: repr(s.section),
    "Section._repr_html_": lambda s: s.section._repr_html_(),
    "Section.free_blocks": lambda s: s.section.free_blocks(),
    "Section.free_list": lambda s: s.section.free_list(0),
    "Section.page_states": lambda s: s.section.page_states(),
    "Slab._repr_html_": lambda s: s.slab._repr_html_(),
    "Slab.__repr__": lambda s: repr(s.slab),
    "Slab.objects": lambda s: s.slab.objects(),
    "Stats.__repr__": lambda s: repr(s.heap.stats()),
    "Walk.__iter__, __next__, __length_hint__": lambda s: list(s.walk),
    "set_cpu": lambda s: bsa.set_cpu(1),
    "current_cpu": lambda s: bsa.current_cpu(),
    "replay": replay(),
    "replay with progress": replay(progress=lambda done: None),
    "_read_recording": lambda s: _core._read_recording(RECORDING),
    "_read_memory_replay": lambda s: _core._read_memory_replay(TEXT),
    "Trace": lambda s: trace(),
    "Trace[i:j]": lambda s: trace()[1:],
}


def attribute(type_name, name):
    place = type_name.lower().replace("allocator", "heap")
    return lambda s: getattr(getattr(s, place), name)


DATA = type(bsa.Allocator.sections)
for _type in (bsa.Allocator, bsa.Block, bsa.Section, bsa.Slab):
    for _name, _member in vars(_type).items():
        if isinstance(_member, DATA):
            GOOD[f"{_type.__name__}.{_name}"] = attribute(_type.__name__, _name)

# --- the wrong ways ---

METHODS = [
    (place, name)
    for place, type_ in (
        ("heap", bsa.Allocator),
        ("closed", bsa.Allocator),
        ("block", bsa.Block),
        ("freed", bsa.Block),
        ("exported", bsa.Block),
        ("section", bsa.Section),
        ("slab", bsa.Slab),
    )
    for name in vars(type_)
    if callable(getattr(type_, name)) and name not in ("__new__", "__doc__")
]
NONSENSE = (
    (),
    (object(),),
    (object(), object(), object()),
    (-1,),
    (1 << 64,),
    (1 << 40,),
    ("x", 3),
)


def nonsense(place, name):
    """A method with arguments that are none; some are right by chance."""

    def call(scene):
        raised = []
        for arguments in NONSENSE:
            for keywords in ({}, {"wrong": 1}):
                try:
                    getattr(getattr(scene, place), name)(*arguments, **keywords)
                except Exception as error:
                    raised.append(type(error))
        return raised

    return call


def raising(call):
    """A call that raises; what it raised is dropped."""

    def wrapped(scene):
        try:
            call(scene)
        except Exception as error:
            return type(error)
        raise AssertionError("it should have raised")

    return wrapped


class Bad:
    """Nothing can be had from it."""

    def __index__(self):
        raise KeyError("mine")

    def __bool__(self):
        raise KeyError("mine")

    def __iter__(self):
        yield 8
        raise KeyError("mine")

    def __call__(self, *arguments):
        raise KeyError("mine")


WRONG = {
    "Allocator of too little": lambda s: bsa.Allocator(10),
    "Allocator of bytes": lambda s: bsa.Allocator(b"read-only"),
    "Allocator of a float": lambda s: bsa.Allocator(1.5),
    "Allocator of more than there is": lambda s: bsa.Allocator(1 << 62),
    "Allocator of what is managed": lambda s: bsa.Allocator(s.region),
    "Allocator, page_size": lambda s: bsa.Allocator(SIZE, page_size=3),
    "Allocator, cpus": lambda s: bsa.Allocator(SIZE, cpus=0),
    "Allocator, phys": lambda s: bsa.Allocator(s.spare, phys=1.5),
    "Allocator, phys that wraps": lambda s: bsa.Allocator(s.spare, phys=(1 << 64) - 1),
    "Allocator, limit": lambda s: bsa.Allocator(s.spare, limit=Bad()),
    "Allocator, on_oom": lambda s: bsa.Allocator(s.spare, on_oom=3),
    "add_region that overlaps": lambda s: s.heap.add_region(memoryview(s.region)[5:5000]),
    "add_region of too little": lambda s: s.heap.add_region(bytearray(100)),
    "alloc, out of memory": lambda s: s.heap.alloc(1 << 30),
    "alloc, align": lambda s: s.heap.alloc(10, 3),
    "alloc, size that raises": lambda s: s.heap.alloc(Bad()),
    "alloc, zero that raises": lambda s: s.heap.alloc(10, zero=Bad()),
    "alloc_from what is no buffer": lambda s: s.heap.alloc_from(Bad()),
    "alloc_from too much": lambda s: s.heap.alloc_from(bytes(SIZE * 4)),
    "alloc_pages, out of memory": lambda s: s.heap.alloc_pages(1 << 20),
    "alloc_pages_lowmem, phys that raises": lowmem_through(Bad()),
    "alloc_pages_lowmem, phys of garbage": lowmem_through(lambda address: "garbage"),
    "alloc_pages_lowmem, phys of a negative": lowmem_through(lambda address: -1),
    "alloc_pages_lowmem, high": lowmem_through(1 << 40),
    "block of a Block's": lambda s: s.heap.block(s.block.address),
    "block of nothing": lambda s: s.heap.block(s.gone),
    "close, while exported": lambda s: s.heap.close(),
    "dealloc_pages, count": lambda s: s.heap.dealloc_pages(s.pages, 100),
    "free twice": lambda s: s.heap.free(s.gone),
    "free inside": lambda s: s.heap.free(s.raw + 1),
    "free elsewhere": lambda s: s.heap.free(8),
    "free, exported": lambda s: s.heap.free(s.exported),
    "free of another's Block": lambda s: s.heap.free(s.orphan),
    "free_many that raises": lambda s: s.heap.free_many(Bad()),
    "free_many, one twice": lambda s: s.heap.free_many([s.raw, s.pages, s.raw]),
    "free_many, a wrong buffer": lambda s: s.heap.free_many(array("d", [1.0])),
    "malloc_many, out of memory": lambda s: s.heap.malloc_many(5000, 1000),
    "realloc, out of memory": lambda s: s.heap.realloc(s.raw, 1 << 30),
    "realloc of nothing": lambda s: s.heap.realloc(s.gone, 10),
    "remove_region in use": lambda s: s.heap.remove_region(s.section),
    "on_oom that says no": fails(False),
    "on_oom that raises": fails(lambda s: Bad()),
    "on_oom of a bad truth": fails(lambda s: lambda: Bad()),
    "on_oom that closes": fails(lambda s: lambda: s.full.close() or True),
    "on_oom that asks again": fails(lambda s: lambda: s.full.alloc(s.wish)),
    "limit that raises": lambda s: setattr(s.heap, "limit", Bad()),
    "limit deleted": lambda s: delattr(s.heap, "limit"),
    "on_oom, not callable": lambda s: setattr(s.heap, "on_oom", 5),
    "page_size set": lambda s: setattr(s.heap, "page_size", 5),
    "Block[i] beyond": lambda s: s.block[100],
    "Block[i:j] = too few": set_item(slice(0, 5), b"1"),
    "Block[i] = too much": set_item(0, 256),
    "Block[i:j] = no bytes": set_item(slice(0, 5), Bad()),
    "memoryview of a freed Block": lambda s: memoryview(s.freed),
    "memoryview of a closed one's Block": lambda s: memoryview(s.orphan),
    "resize, exported": lambda s: s.exported.resize(1000),
    "resize, out of memory": lambda s: s.block.resize(1 << 30),
    "set_cpu": lambda s: bsa.set_cpu(Bad()),
    "alloc on no slot": lambda s: (bsa.set_cpu(7), s.heap.alloc(10)),
    "replay of a dead id": replay(*ROWS, *ROWS[1:]),
    "replay, out of memory": replay((bsa.TraceOp.ALLOC, 0, 1 << 40)),
    "replay, progress that raises": replay(progress=Bad()),
    "_read_recording of text": lambda s: _core._read_recording(TEXT),
    "_read_recording, cut": lambda s: _core._read_recording(RECORDING[:-5]),
    "_read_memory_replay, cut": lambda s: _core._read_memory_replay(TEXT[:-5]),
    "_read_memory_replay of garbage": lambda s: _core._read_memory_replay(b"garbage\n"),
    "Trace of an unknown operation": lambda s: trace((9, 0, 0)),
    "Trace of an id alive": lambda s: trace(ROWS[0], ROWS[0]),
}
ERRORS = {name: raising(call) for name, call in WRONG.items()}
ERRORS["on_oom that makes room"] = fails(lambda s: lambda: bool(s.full.add_region(s.wish * 2)))
ERRORS.update({f"nonsense to {place}.{name}": nonsense(place, name) for place, name in METHODS})


def collect():
    for _ in range(3):
        gc.collect()
