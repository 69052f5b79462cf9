"""What a replay saw: a table of looks at the heap, one row a sample.

The engine in C writes the rows; here they are given names. A row is a fixed number of signed 64-bit
numbers, so a column is a strided view of the same bytes: nothing is copied, NumPy can take it as it
is, and pickling is pickling bytes.
"""

import operator
from dataclasses import dataclass

from bsa import _core
from bsa.trace import Trace
from bsa.units import counted

ORDERS = _core.MAX_ORDER + 1  # a block has 2^0 to 2^MAX_ORDER pages

# A row: four numbers, then three groups of one number per order.
_EVENT, _REQUESTED, _GRANTED, _ALLOCATED, _FREE_BLOCKS = range(5)
_UNUSABLE = _FREE_BLOCKS + ORDERS
_EXTFRAG = _UNUSABLE + ORDERS
_ROW = _EXTFRAG + ORDERS


@dataclass(frozen=True, slots=True, repr=False)
class Timeline:
    """Samples of a heap taken while a trace ran; the last one shows the end.

    Columns are read-only memoryviews of 64-bit integers with one entry a sample: `event` (events
    run before), `requested` and `granted` (live bytes of the trace, as asked for and as served),
    and `allocated` (bytes of all pages that are not free: slabs' unused objects included).
    """

    rows: bytes  #: the samples as the engine wrote them
    events: int  #: events that ran
    survivors: int  #: allocations still alive at the end
    page_size: int
    managed: int  #: bytes of heap

    def __len__(self):
        return len(self.rows) // (8 * _ROW)

    def __repr__(self):
        return (
            f"<bsa.Timeline of {counted(self.events, 'event')}: {counted(len(self), 'sample')}, "
            f"{counted(self.survivors, 'survivor')}, {counted(self.managed, 'byte')} of heap>"
        )

    @property
    def event(self):
        return self._column(_EVENT)

    @property
    def requested(self):
        return self._column(_REQUESTED)

    @property
    def granted(self):
        return self._column(_GRANTED)

    @property
    def allocated(self):
        return self._column(_ALLOCATED)

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

    def _column(self, index):
        return memoryview(self.rows).cast("q")[index::_ROW]

    def _thousandths(self, group, order):
        order = operator.index(order)
        if not 0 <= order < ORDERS:
            raise _core.InvalidParamError(f"order {order} is not in 0 to {ORDERS - 1}")
        return tuple(value / 1000 for value in self._column(group + order))


def replay(trace, allocator, *, samples=0, progress=None):
    """Run the events of a trace against an allocator, in C, and return a Timeline.

    Thread t of the trace runs on slot t modulo `allocator.cpus`, so that frees by other threads are
    remote frees. Allocations that the trace never frees stay allocated. Zeroed allocations are not
    cleared: a replay shows places, not contents. `samples` looks at the heap are spread evenly over
    the events, the last one at the end, which is always taken. `progress(events_run)` is called
    every few milliseconds.

    A trace that does not fit raises OutOfMemoryError, one that is no possible history (an id freed
    twice, say) InvalidParamError; both name the event, and those before it stand. Ctrl-C ends a
    replay between two events. Other threads that use the allocator wait meanwhile, and close()
    raises InUseError. The allocator's on_oom is not asked.
    """
    if not isinstance(trace, Trace):
        raise TypeError(f"replay() needs a bsa.Trace, not {type(trace).__name__}")
    if not isinstance(allocator, _core.Allocator):
        raise TypeError(f"replay() needs a bsa.Allocator, not {type(allocator).__name__}")
    page_size, managed = allocator.page_size, allocator.managed_bytes  # it may be closed afterwards
    rows, survivors = _core._replay(
        allocator,
        trace.op,
        trace.id,
        trace.size,
        trace.align,
        trace.thread,
        samples,
        progress,
    )
    return Timeline(rows, len(trace), survivors, page_size, managed)
