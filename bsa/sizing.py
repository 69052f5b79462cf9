"""The smallest heap that would have been enough for a trace: found by trying.

Whether a trace fits depends on splits, merges and slabs, for which there is no formula; but a
replay takes a fraction of a second. So sizes are bisected by whole pages, between one that was seen
to fail and one that was seen to be enough.

More memory nearly always helps, but not strictly: where blocks lie depends on the heap's end, and a
heap one page larger may by bad luck split a block it would better have kept. What is promised is
therefore just what was tried: the result is enough, and one page less is not.
"""

from bsa._core import Allocator, InvalidParamError, OutOfMemoryError
from bsa.timeline import replay
from bsa.units import format_size

_MOST_PAGES = 2**32  # page numbers have 32 bits


def smallest_heap(trace, *, page_size=4096, cpus=None, progress=None):
    """Bytes of memory, metadata included, that an allocator needs to run the trace; whole pages.

    `cpus`: slots, as for Allocator. `progress`: a bsa.progress.Progress. OutOfMemoryError: no heap
    is large enough.
    """
    Allocator(page_size=page_size, cpus=cpus).close()  # refuses what no size would make right
    too_small = max(trace.peak[1] - 1, 0) // page_size  # less memory than is live at the peak
    enough = too_small + too_small // 8 + 8
    while not _fits(trace, enough, page_size, cpus, progress):
        too_small, enough = enough, enough + enough // 4
    while enough - too_small > 1:
        pages = (too_small + enough) // 2
        if _fits(trace, pages, page_size, cpus, progress):
            enough = pages
        else:
            too_small = pages
    return enough * page_size


def _fits(trace, pages, page_size, cpus, progress):
    size = pages * page_size
    try:
        heap = Allocator(size, page_size=page_size, cpus=cpus)
    except InvalidParamError:
        if pages > _MOST_PAGES:
            raise
        return False  # too small even for its own metadata
    step = progress and progress.step(f"is {format_size(size)} enough", len(trace))
    with heap:
        return _runs(trace, heap, pages, step)


def _runs(trace, heap, pages, step):
    try:
        replay(trace, heap, progress=step)
    except OutOfMemoryError:
        if pages > _MOST_PAGES or max(trace.size) > heap.page_size << 20:
            raise
        return False
    return True


def comfortable(size):
    """`size` rounded up to a figure with three binary digits: 20, 24, 28, 32, 40, 48 ... MiB."""
    step = 1 << max(size.bit_length() - 3, 0)
    return -(-size // step) * step
