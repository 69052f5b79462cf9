"""The heap when most of it was held: what lost most, and where it lay.

A Timeline has numbers alone. So the trace is run once more, up to that moment, in a heap like the
first one; that takes about as long as the replay did, and as looking at each event's size.
"""

from collections import Counter, defaultdict
from typing import NamedTuple

from bsa._core import AllocError, Allocator
from bsa.births import Steps
from bsa.timeline import fullest
from bsa.units import counted, format_size, percent
from bsa.views.maps import HeapMap, heap_map


class Loss(NamedTuple):
    """What is held and was not asked for, of blocks of one size, or in slabs of one class."""

    size: int  #: bytes lost
    what: str
    how_many: str


class Tightest(NamedTuple):
    """What there was to be seen."""

    losses: tuple[Loss, ...]  #: all there are, the largest first
    map: HeapMap


def tightest(timeline):
    """The heap after the event at which the samples saw the most pages held: a Tightest; None where
    the timeline does not know how to come there again (see Timeline.origin)."""
    at = fullest(timeline)
    if timeline.origin is None:
        return None
    trace, size, cpus = timeline.origin
    try:
        with Allocator(size, page_size=timeline.page_size, cpus=cpus) as heap:
            steps = Steps(trace, heap)
            steps.run(timeline.event[at])
            if heap.allocated_bytes != timeline.allocated[at]:
                return None  # another thread used the first heap as well
            births = steps.births()
            return Tightest(losses(heap, births), heap_map(heap, births=births))
    except (AllocError, MemoryError):  # for two such heaps there is no room
        return None


def losses(allocator, births):
    """Of a heap in which nothing lives but what `births` (of replay_births()) knows: a Loss for each
    size that is served, and for each class that has slabs; the largest first. Together they are
    all that is held and was not asked for."""
    found = [*_rounded(allocator, births), *_unused(allocator)]
    return tuple(sorted((loss for loss in found if loss.size), reverse=True))


def shortened(losses, most):
    """The first ones, and a Loss for all the others together, if there are more."""
    others = losses[most:]
    if not others:
        return losses
    return (*losses[:most], Loss(sum(loss.size for loss in others), f"{len(others):,} more", ""))


def _rounded(allocator, births):
    """Of each size that is served: the blocks that asked for less."""
    asked = defaultdict(Counter)
    for address, granted, _ in allocator.walk():
        if births[address].size < granted:
            asked[granted][births[address].size] += 1
    for granted, counts in asked.items():
        lost = sum(count * (granted - size) for size, count in counts.items())
        what = f"{_sizes(counts)} in {format_size(granted)}"
        yield Loss(lost, what, f"{sum(counts.values()):,}")


def _sizes(counts):
    """Of blocks, so many of each size, in words."""
    least, most = min(counts), max(counts)
    if least == most:
        return f"blocks of {counted(most, 'byte')}"
    usual, often = counts.most_common(1)[0]
    mostly = f", most of {usual:,}," if often > sum(counts.values()) / 2 else ""
    return f"blocks of {least:,} to {most:,} bytes{mostly}"


def _unused(allocator):
    slabs, held, live = Counter(), Counter(), Counter()
    for slab in allocator.slabs():
        slabs[slab.size] += 1
        held[slab.size] += slab.nbytes
        live[slab.size] += slab.size * (slab.capacity - slab.free_count - slab.remote_free_count)
    for size, count in slabs.items():
        used = percent(live[size], held[size])
        what = f"unused in slabs of {size:,}-byte objects, {used} in use"
        yield Loss(held[size] - live[size], what, counted(count, "slab"))
