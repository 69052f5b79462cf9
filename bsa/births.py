"""Which event of a trace made which live block: a replay that keeps the addresses.

replay() runs in C and leaves the survivors allocated, but does not say which is which. Here the same
calls are made one by one, on the same slots in the same order, so the blocks lie at the same places.
"""

from contextlib import ExitStack
from typing import NamedTuple

from bsa._core import Allocator, set_cpu
from bsa.trace import TraceOp


class Birth(NamedTuple):
    """The event that made a block: the allocation, or the last reallocation."""

    event: int
    size: int  #: bytes asked for
    thread: int


def replay_births(trace, allocator: Allocator) -> dict[int, Birth]:
    """Run the trace as replay() does, in Python; the Birth of each survivor by its address.

    Slower than replay(): a second for a million events or two. Errors are the allocator's.
    """
    live: dict[int, int] = {}  # id: address
    births: dict[int, Birth] = {}
    with ExitStack() as stack:
        stack.callback(set_cpu, set_cpu(None))
        for event, (op, id, size, align, thread) in enumerate(trace):
            set_cpu(thread % allocator.cpus)
            if op == TraceOp.FREE:
                address = live.pop(id)
                del births[address]
                allocator.free(address)
                continue
            if op == TraceOp.REALLOC:
                old = live[id]
                live[id] = address = allocator.realloc(old, size)
                del births[old]
            else:
                live[id] = address = allocator.malloc(size, align or None)
            births[address] = Birth(event, size, thread)
    return births
