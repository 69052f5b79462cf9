"""Which event of a trace made which live block: replays that keep the addresses.

The engine in C leaves in a table where the block of each id lies. What made it, the trace itself
tells: the last event of its id.
"""

from typing import NamedTuple

from bsa import _core
from bsa.timeline import columns
from bsa.trace import Trace, TraceOp

_ENTRY = 16  # bytes of the table for each id: where its block lies, and the bytes asked for


class Birth(NamedTuple):
    """The event that made a block: the allocation, or the last reallocation."""

    event: int
    size: int  #: bytes asked for
    thread: int


def replay_births(trace, allocator) -> dict[int, Birth]:
    """Run the trace as replay() does; the Birth of each survivor by its address.

    Errors are those of replay().
    """
    if not isinstance(trace, Trace):
        raise TypeError(f"replay_births() needs a bsa.Trace, not {type(trace).__name__}")
    steps = Steps(trace, allocator)
    steps.run(len(trace))
    return steps.births()


class Steps:
    """A trace that is run in an allocator step by step, to look at the heap in between."""

    def __init__(self, trace, allocator):
        self.done = 0  #: events run
        self._allocator = allocator
        self._columns = columns(trace)
        self._table = bytearray(_ENTRY * max(trace.ids, 1))

    def run(self, until):
        """Run the events up to that one. Errors as of replay(), with the number in the step."""
        part = (column[self.done : until] for column in self._columns)
        _core._replay(self._allocator, *part, 0, False, None, self._table)
        self.done = until

    def births(self):
        """As replay_births(), of the blocks that live now. O(events run)."""
        ops, ids, sizes, _, threads = self._columns
        makers, free = {}, int(TraceOp.FREE)
        for event, (op, id) in enumerate(zip(ops[: self.done], ids)):
            if op != free:
                makers[id] = event
        addresses = memoryview(self._table).cast("Q")[::2]
        return {
            addresses[id]: Birth(event, sizes[event], threads[event])
            for id, event in makers.items()
            if addresses[id]
        }
