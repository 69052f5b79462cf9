"""The smallest heap that would have been enough for a trace: found by trying, in C."""

from bsa import _core
from bsa.timeline import columns
from bsa.trace import Trace


def smallest_heap(trace, *, page_size=4096, cpus=None, progress=None):
    """Bytes of memory, metadata included, that an allocator needs to run the trace; whole pages.

    `Allocator(result, page_size=page_size, cpus=cpus)` runs the trace, and one of a page less does
    not. Sizes are bisected, with a replay for each: some ten of them. A heap that is still smaller
    may be enough by chance, since where blocks lie depends on where the heap ends.

    `page_size` (bytes) and `cpus` (slots): as for Allocator. `progress(size, events_run)` is called
    every few milliseconds, with the size that is being tried; Ctrl-C ends the search.

    OutOfMemoryError: no heap is large enough; the text names the event. InvalidParamError: a page
    size or number of slots that no allocator has.
    """
    if not isinstance(trace, Trace):
        raise TypeError(f"smallest_heap() needs a bsa.Trace, not {type(trace).__name__}")
    _core.Allocator(page_size=page_size, cpus=cpus).close()  # refuses what no size would make right
    return _core._smallest_heap(*columns(trace), trace.peak[1], page_size, cpus, progress)


def comfortable(size):
    """`size` rounded up to a figure with three binary digits: 20, 24, 28, 32, 40, 48 ... MiB."""
    step = 1 << max(size.bit_length() - 3, 0)
    return -(-size // step) * step
