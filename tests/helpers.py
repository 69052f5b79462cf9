"""What several test files share."""

import contextlib
import ctypes
import mmap
import os
import subprocess
import sys
import textwrap

import bsa

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


# --- what a refusal must leave alone ---


def state(heap):
    """All that can be seen of a heap, but for the count of failures."""
    stats = heap.stats()
    return {
        "walk": list(heap.walk()),
        "free blocks": heap.free_blocks(),
        "stats": {n: getattr(stats, n) for n in type(stats).__match_args__ if n != "failures"},
        "requested": heap.requested_bytes,
        "sections": [(s.start, s.page_states(), s.free_blocks()) for s in heap.sections],
        "slabs": [(slab.base, slab.state, slab.bitmap) for slab in heap.slabs()],
    }


@contextlib.contextmanager
def unchanged(*heaps):
    """What happens inside changes nothing that can be seen of the heaps."""
    before = [state(heap) for heap in heaps]
    yield
    for heap, seen in zip(heaps, before):
        heap.check()
        assert state(heap) == seen


# --- memory ---


def address_of(buffer):
    """Address of the first byte of a writable buffer."""
    with memoryview(buffer) as view:
        return ctypes.addressof(ctypes.c_char.from_buffer(view))


def poke(address, data):
    """Write bytes at an address, as a program in C would."""
    ctypes.memmove(address, bytes(data), len(data))


def peek(address, size):
    return ctypes.string_at(address, size)


def aligned(size, align=4 * MIB, offset=0):
    """A view of `size` fresh bytes that start `offset` bytes after a multiple of `align`."""
    memory = mmap.mmap(-1, size + 2 * align)
    start = (offset - address_of(memory)) % align
    return memoryview(memory)[start : start + size]


def region_of_pages(pages, offset=0, page_size=4096, align=4 * MIB):
    """A region whose heap has `pages` pages and starts `offset` bytes after a multiple of `align`."""
    metadata = page_size
    while True:
        size = metadata + pages * page_size
        with bsa.Allocator(aligned(size, align), page_size=page_size) as probe:
            found = probe.sections[0].metadata_size
            if probe.total_pages == pages:
                break
        metadata += page_size
    return aligned(size, align, (offset - found) % align)


# --- filling a heap ---


def exhaust(allocate, *arguments):
    """Call allocate(*arguments) until nothing fits any more; what it returned."""
    got = []
    with contextlib.suppress(bsa.OutOfMemoryError):
        while True:
            got.append(allocate(*arguments))
    return got


def overwrite(heap, byte=0xFF):
    """Take all memory that is free, in pieces of every size, and write over it; then give it back."""
    taken = []
    size = 1 << (heap.largest_free.bit_length() - 1) if heap.largest_free else 0
    while size >= 8:
        for address in exhaust(heap.malloc, size):
            ctypes.memset(address, byte, heap.usable_size(address))
            taken.append(address)
        size //= 2
    heap.free_many(taken)


# --- fragmentation indices, as in Linux's mm/vmstat.c ---


def contiguity(free_blocks, order):
    """Free pages, free blocks, and how many blocks of the order the free blocks hold."""
    pages = sum(count << o for o, count in enumerate(free_blocks))
    suitable = sum(
        count << (o - order) for o, count in enumerate(free_blocks) if count and o >= order
    )
    return pages, sum(free_blocks), suitable


def unusable_free_index(free_blocks, order):
    pages, _, suitable = contiguity(free_blocks, order)
    if pages == 0:
        return 1000
    return (pages - (suitable << order)) * 1000 // pages


def fragmentation_index(free_blocks, order):
    pages, blocks, suitable = contiguity(free_blocks, order)
    if blocks == 0:
        return 0
    if suitable:
        return -1000
    return 1000 - (1000 + pages * 1000 // (1 << order)) // blocks


# --- code that runs at inconvenient moments ---


class Index:
    """An integer whose conversion does something first."""

    def __init__(self, value, action):
        self.value, self.action = value, action

    def __index__(self):
        self.action()
        return self.value


class Truth:
    """A truth value whose conversion does something first."""

    def __init__(self, value, action):
        self.value, self.action = value, action

    def __bool__(self):
        self.action()
        return self.value


def in_child(script, **variables):
    """Run a script in a Python of its own, where a crash harms nobody; what it printed."""
    prologue = "".join(f"{name} = {value!r}\n" for name, value in variables.items())
    path = [os.path.dirname(__file__), os.environ.get("PYTHONPATH")]  # so that it finds this file
    done = subprocess.run(
        [sys.executable, "-c", prologue + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
