"""What a replay saw: a table of looks at the heap, one row a sample.

The engine in C writes the rows; here they are given names. A row is a fixed number of signed 64-bit
numbers, so a column is a strided view of the same bytes: nothing is copied, NumPy can take it as it
is, and pickling is pickling bytes.
"""

import math
import operator
from dataclasses import dataclass, field
from typing import NamedTuple

from bsa import _core, metrics
from bsa.trace import Trace
from bsa.units import counted

ORDERS = _core.MAX_ORDER + 1  # a block has 2^0 to 2^MAX_ORDER pages

# A row: these numbers, then three groups of one number per order. As struct bsa_sample has them.
NUMBERS = (
    "event",
    "requested",
    "granted",
    "allocated",
    "peak_requested",
    "peak_allocated",
    "class_rounding",
    "page_rounding",
    "slab_slack",
    "free",
    "largest_free",
    "huge_free",
    "free_squares",
)
_PLACES = {name: place for place, name in enumerate(NUMBERS)}
_FREE_BLOCKS = len(NUMBERS)
_UNUSABLE = _FREE_BLOCKS + ORDERS
_EXTFRAG = _UNUSABLE + ORDERS
_ROW = _EXTFRAG + ORDERS


def _column(name, doc):
    """A property: the column of that name."""
    return property(lambda timeline: timeline._column(_PLACES[name]), doc=doc)


class Origin(NamedTuple):
    """What makes the same Timeline again."""

    trace: Trace
    size: int  #: bytes, for an Allocator like the one of the replay
    cpus: int


@dataclass(frozen=True, slots=True, repr=False)
class Timeline:
    """Samples of a heap taken while a trace ran; the last one shows the end.

    Columns are read-only memoryviews of 64-bit integers with one entry a sample; they are bytes
    where nothing else is said. What the trace itself has is told apart from what was live in the
    heap before, except in columns about pages: those are the heap's.

    Where the heap was empty before, `allocated` is the sum of `requested` and the three losses
    `class_rounding`, `page_rounding` and `slab_slack`. Always, `allocated + free` is `managed`; less
    only before `progress` has added a region. The formulas and origins of the metrics stand in
    bsa.metrics.
    """

    rows: bytes  #: the samples as the engine wrote them
    events: int  #: events of the trace, all of which were run or skipped
    survivors: int  #: allocations still alive at the end
    page_size: int
    managed: int  #: bytes of heap, at the last sample
    #: number of bad events that were skipped, by kind (see replay); empty if there were none
    skipped: dict = field(default_factory=dict, hash=False)
    #: None if another heap would not do the same: this one was not empty, has a limit, several
    #: sections or somebody's buffer, or events were skipped; and after pickling: traces may be large
    origin: Origin | None = field(default=None, compare=False)

    event = _column("event", "Events run before the sample.")
    requested = _column("requested", "Live bytes of the trace, as asked for.")
    granted = _column("granted", "The same blocks in the sizes that they were served with.")
    allocated = _column("allocated", "Pages that are not free: slabs' unused objects included.")
    peak_requested = _column("peak_requested", "The most there was of `requested`, at any event.")
    peak_allocated = _column(
        "peak_allocated",
        "The most there was of `allocated`, at any moment since the heap was made (or its "
        "reset_peak() called).",
    )
    class_rounding = _column("class_rounding", "Lost by rounding objects up to their size class.")
    page_rounding = _column("page_rounding", "Lost by rounding page blocks up to powers of two.")
    slab_slack = _column(
        "slab_slack",
        "In slabs' pages but in no live object: unused objects (also freed ones that their owner "
        "has not drained yet) and the tails of slabs.",
    )
    free = _column("free", "Pages that are free.")
    largest_free = _column("largest_free", "The largest free block; 0 if nothing is free.")
    huge_free = _column("huge_free", "Free blocks of 2 MiB or more: what could be huge pages.")
    free_squares = _column("free_squares", "Sum of the free blocks' squared sizes, in pages.")

    def __len__(self):
        return len(self.rows) // (8 * _ROW)

    def __repr__(self):
        return (
            f"<bsa.Timeline of {counted(self.events, 'event')}: {counted(len(self), 'sample')}, "
            f"{counted(self.survivors, 'survivor')}, {counted(self.managed, 'byte')} of heap>"
        )

    def __reduce__(self):
        numbers = self.rows, self.events, self.survivors, self.page_size, self.managed
        return type(self), (*numbers, self.skipped)

    def plot(self, ax=None):
        """Draw memory over events, stacked, with matplotlib: into `ax` or the current axes, which are
        returned. ImportError: it is not installed. More: bsa.views."""
        from bsa.views import memory_timeline  # pictures are needed only where they are shown

        return memory_timeline(self).plot(ax)

    def save(self, path):
        """Write the same picture as an SVG file, without matplotlib; as View.save() does."""
        from bsa.views import memory_timeline

        memory_timeline(self).save(path)

    def _repr_html_(self):
        from bsa.html import timeline_html

        return timeline_html(self)

    @property
    def free_blocks(self):
        """Per sample the number of free blocks of each order, from single pages up."""
        return tuple(zip(*(self._column(_FREE_BLOCKS + order) for order in range(ORDERS))))

    def unusable_index(self, order):
        """Per sample: the share of free memory that cannot serve 2^order pages in one piece."""
        return self._thousandths(_UNUSABLE, order)

    def extfrag_index(self, order):
        """Per sample: why a request of 2^order pages would fail. Towards 0 for lack of memory,
        towards 1 for fragmentation, -1 where it would succeed."""
        return self._thousandths(_EXTFRAG, order)

    def extfrag_percent(self, order):
        """Per sample: metrics.extfrag_for_order, the same share as the unusable index, in whole per
        cent. Where nothing is free it is 0, and the unusable index 1."""
        values = self._group(_UNUSABLE, order)
        return tuple(value // 10 if free else 0 for value, free in zip(values, self.free))

    @property
    def sum_of_squares_index(self):
        """Per sample: metrics.sum_of_squares_index, 0 if all that is free is one block, towards 1
        for many small ones."""
        return tuple(
            1 - math.sqrt(squares) * self.page_size / free if free else 0.0
            for squares, free in zip(self.free_squares, self.free)
        )

    @property
    def huge_share(self):
        """Per sample: the share of free memory in blocks of 2 MiB or more; 0 where nothing is."""
        return tuple(huge / free if free else 0.0 for huge, free in zip(self.huge_free, self.free))

    @property
    def mean_footprint(self):
        """metrics.mean_footprint of the samples: pages in use by bytes live, averaged."""
        return metrics.mean_footprint(self.allocated, self.requested)

    @property
    def peak_footprint(self):
        """metrics.peak_footprint: the most pages in use by the most bytes live, both exact."""
        return metrics.peak_footprint(self.peak_allocated[-1:], self.peak_requested[-1:])

    def _column(self, index):
        return memoryview(self.rows).cast("q")[index::_ROW]

    def _group(self, group, order):
        order = operator.index(order)
        if not 0 <= order < ORDERS:
            raise _core.InvalidParamError(f"order {order} is not in 0 to {ORDERS - 1}")
        return self._column(group + order)

    def _thousandths(self, group, order):
        return tuple(value / 1000 for value in self._group(group, order))


_BAD = ("raise", "skip")


def replay(trace, allocator, *, samples=1000, bad="raise", progress=None):
    """Run the events of a trace against an allocator, in C, and return a Timeline.

    Thread t of the trace runs on slot t modulo `allocator.cpus`, so that frees by other threads are
    remote frees. Allocations that the trace never frees stay allocated. Zeroed allocations are not
    cleared: a replay shows places, not contents. `samples` looks at the heap are spread evenly over
    the events, the last one at the end, which is always taken: with 0 it is the only one.
    `progress(events_run)` is called every few milliseconds.

    `bad` says what becomes of events that cannot be run. "raise": the first one raises
    OutOfMemoryError if it does not fit, else InvalidParamError (or the allocator's own exception);
    the text names the event, and those before it stand. "skip": they change nothing and are counted
    in `Timeline.skipped`, by kind:

    - no_memory: an allocation that does not fit, or a realloc, after which the old block stays
    - unknown_frees, double_frees: the free of an id that never was alive, or is no more
    - unknown_reallocs: the realloc of an id that is not alive
    - repeated_ids: the allocation of an id that is alive, which stays as it was
    - unknown_ops: what is no TraceOp
    - refused: what the allocator refuses for another reason (as an alignment that is none)
    - taken: the free or realloc of a block that has got another owner meanwhile
    - orphaned: the free or realloc of a block that was skipped itself

    A Trace is a possible history, so all it can meet are the first and the last three.
    NotInitializedError, for an allocator without a section, is never skipped.

    Ctrl-C ends a replay between two events. Other threads that use the allocator wait meanwhile, and
    close() raises InUseError. The allocator's on_oom is not asked.
    """
    if not isinstance(trace, Trace):
        raise TypeError(f"replay() needs a bsa.Trace, not {type(trace).__name__}")
    if not isinstance(allocator, _core.Allocator):
        raise TypeError(f"replay() needs a bsa.Allocator, not {type(allocator).__name__}")
    if bad not in _BAD:
        raise _core.InvalidParamError(f"bad must be 'raise' or 'skip', is {bad!r}")
    page_size = allocator.page_size  # the allocator may be closed afterwards
    origin = _origin(trace, allocator)
    rows, survivors, skipped = _core._replay(
        allocator, *columns(trace), samples, bad == "skip", progress, None
    )
    last = memoryview(rows).cast("q")[-_ROW:]
    managed = last[_PLACES["allocated"]] + last[_PLACES["free"]]
    return Timeline(
        rows, len(trace), survivors, page_size, managed, skipped, None if skipped else origin
    )


def fullest(timeline):
    """The number of the sample that saw the most pages in use; of several the first."""
    return max(range(len(timeline)), key=timeline.allocated.__getitem__)


def _origin(trace, allocator):
    if allocator.closed or allocator.limit is not None or allocator.allocated_bytes:
        return None
    sections = allocator.sections
    if len(sections) != 1:
        return None
    start, size = sections[0].region_start, sections[0].region_size
    # Where blocks lie depends on how a heap is aligned: those that Allocator(size) makes all are.
    if start % min(1 << (size - 1).bit_length(), 1 << 32):
        return None
    return Origin(trace, size, allocator.cpus)


def columns(trace):
    """The five columns, as the functions of bsa._core take them."""
    return trace.op, trace.id, trace.size, trace.align, trace.thread
