"""Programs that once showed a bug, or are the shortest that would show it again.

Each is a program as bsa.testing prints it. Bugs that need two threads at one moment are not here:
tests/c/test_threads.c has those.
"""

import pytest

from bsa.testing import run_program

SMALL = {"page_size": 256, "cpus": 2, "regions": [(0, 8960, None)]}
ODD = {"page_size": 4096, "cpus": 2, "regions": [(4097, 120001, None), (3, 40000, 1 << 32)]}

# name: (machine, setup, steps)
PROGRAMS = {
    # The second free of the first object of a slab came when the slab had been given back, and
    # looked like a free of the page block that had taken its place.
    "the first object of a slab that is gone is freed again": (
        "slab",
        ODD,
        [("malloc", 64), ("cpu", 1), ("free", 0), ("cpu", 0), ("trim",), ("double_free", 0)],
    ),
    "the same, and something else has come to live there": (
        "allocator",
        ODD,
        [("malloc", 64), ("free", 0), ("trim",), ("alloc_pages", 2), ("free_inside", 1, 63)],
    ),
    # An unaligned address in a free page was read as one amid a live block.
    "an address inside a free page is freed": (
        "allocator",
        SMALL,
        [("malloc", 1000), ("free", 0), ("free_inside_freed", 0, 0), ("free_inside_freed", 0, 300)],
    ),
    # A local and a remote free of one object were both accepted, and counted twice at the drain.
    "an object is freed locally, then remotely": (
        "slab",
        SMALL,
        [
            ("malloc", 8, None, 3),
            ("free", 1),
            ("cpu", 1),
            ("double_free", 1),
            ("cpu", 0),
            ("trim",),
        ],
    ),
    "an object is freed remotely, then locally, then remotely": (
        "slab",
        SMALL,
        [
            ("malloc", 8, None, 3),
            ("cpu", 1),
            ("free", 1),
            ("cpu", 0),
            ("double_free", 1),
            ("cpu", 1),
            ("double_free", 1),
            ("trim",),
        ],
    ),
    # A remote free of a full slab must bring it back to the owner, or memory grows for ever.
    "a full slab is freed remotely and used again": (
        "slab",
        SMALL,
        [("malloc", 16, None, 40), ("cpu", 1), ("free_like", 0, 2), ("cpu", 0), ("malloc", 16)]
        + [("malloc", 16, None, 40)],
    ),
    # A pending remote free made the owner take a slab off the wrong list.
    "a slab with pending frees becomes partial, then empty": (
        "slab",
        SMALL,
        [("malloc", 32, None, 40), ("cpu", 1), ("free", 0), ("cpu", 0), ("free", 1)]
        + [("free_like", 2, 1), ("malloc", 32, None, 60)],
    ),
    # A slot that the allocator has not must free remotely, also its last object.
    "a thread without a slot frees": (
        "slab",
        SMALL,
        [("malloc", 100, None, 5), ("cpu", 3), ("free_like", 0, 1), ("malloc", 8), ("cpu", 1)]
        + [("malloc", 4000)],
    ),
    # More alignment than the start of the heap has.
    "an aligned block is found in a heap that starts anywhere": (
        "buddy",
        {"page_size": 4096, "cpus": 1, "regions": [(12288, 8192 + 30 * 4096, None)]},
        [("alloc_pages", 4, 16384), ("alloc_pages", 1, 32768), ("alloc_pages", 8, 65536)],
    ),
    "an exact block grows into the tail that it gave up": (
        "buddy",
        {"page_size": 256, "cpus": 1, "regions": [(0, 8192 + 40 * 256, None)]},
        [("alloc_pages", 5, None, True), ("resize", 0, 7 * 256), ("resize", 0, 3 * 256)]
        + [("alloc_pages", 2), ("resize", 0, 8 * 256), ("free", 0)],
    ),
    # Consumers that drop their view at once keep a pointer all the same.
    "a Block that was exported is resized, freed and dropped": (
        "allocator",
        ODD,
        [("alloc", 100), ("export", 0), ("release_view", 0), ("resize", 0, 9000)]
        + [("take_from_block", 0), ("free_block", 0), ("take_from_block", 0), ("drop", 0)],
    ),
    "an allocator with exported and parked Blocks is closed": (
        "allocator",
        ODD,
        [("alloc", 100), ("export", 0), ("reopen",), ("release_view", 0), ("alloc", 5000)]
        + [("export", 1), ("release_view", 1), ("free_block", 1), ("reopen",), ("alloc", 5000)],
    ),
    "a bulk free with one wrong address frees nothing": (
        "allocator",
        ODD,
        [("malloc_many", 3, 40), ("free_many_wrongly", 0, 0), ("free_many_wrongly", 0, 1)]
        + [("alloc", 40), ("free_many_wrongly", 1, 3), ("free_many", [2, 0, 1])],
    ),
    "a section is removed while objects of it are pending": (
        "allocator",
        ODD,
        [("malloc", 20000), ("malloc", 90000), ("malloc_many", 30, 500), ("cpu", 1)]
        + [("free_many", list(range(2, 32))), ("remove_section", 1)],
    ),
    "low pages are found where only a part of a block is low": (
        "allocator",
        {"page_size": 4096, "cpus": 1, "regions": [(0, 200000, (1 << 32) - 40000)]},
        [("alloc_pages_lowmem", 1), ("alloc_pages_lowmem", 4), ("alloc_pages_lowmem", 4)],
    ),
    "the last low page ends where low memory does": (
        "allocator",
        {"page_size": 4096, "cpus": 1, "regions": [(0, 100000, (1 << 32) - 6 * 4096)]},
        [("alloc_pages_lowmem", 1)] * 7,
    ),
    "an allocation that moves and shrinks leaves its new neighbour alone": (
        "allocator",
        ODD,
        [("malloc_many", 3, 64), ("malloc", 200), ("free", 0), ("realloc", 3, 64)],
    ),
    "a limit refuses what would fit": (
        "allocator",
        ODD,
        [("limit", 8192), ("malloc", 8), ("malloc", 4096), ("limit", None), ("malloc", 4096)],
    ),
    "a peak counts both places of an allocation that moves": (
        "allocator",
        ODD,
        [("malloc", 100), ("realloc", 0, 5000), ("reset_peak",), ("alloc", 30), ("resize", 1, 90)]
        + [("free", 0), ("malloc_many", 9, 40), ("export", 1), ("release_view", 1)]
        + [("resize", 1, 9000)],
    ),
    "a Block that holds a heap stays as it is": (
        "allocator",
        ODD,
        [("alloc", 9000), ("nest", 0, 24), ("nest", 0, 24), ("free_block", 0), ("resize", 0, 9)]
        + [("detach", 0), ("reopen",), ("release_view", 0), ("nest", 0, 300), ("cpu", 1)]
        + [("export", 0), ("release_view", 0), ("release_view", 0), ("free_block", 0)],
    ),
    "on_oom frees, for a request and for a resize": (
        "allocator",
        SMALL,
        [("on_oom", "free"), ("malloc_many", 60, 100), ("alloc", 10), ("malloc", 2000)]
        + [("resize", 60, 2000), ("malloc", 100000), ("alloc_pages", 4), ("alloc_from", 300)],
    ),
    "on_oom adds regions, until it does not": (
        "allocator",
        SMALL,
        [("on_oom", "extend"), ("malloc", 3000), ("malloc", 3000), ("malloc_many", 90, 100)]
        + [("alloc_pages_lowmem", 8), ("limit", 4096), ("malloc", 3000)],
    ),
    "on_oom raises or refuses, and nothing has changed": (
        "allocator",
        SMALL,
        [("alloc", 10), ("on_oom", "fail"), ("malloc", 30000), ("resize", 0, 30000)]
        + [
            ("on_oom", "refuse"),
            ("malloc_many", 90, 200),
            ("resize", 0, 30000),
            ("malloc", 1 << 60),
        ],
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name):
    machine, setup, steps = PROGRAMS[name]
    run_program({"machine": machine, "setup": setup, "steps": steps})
