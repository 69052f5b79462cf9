"""What replays say about a trace: where its memory goes, in figures.

A study replays the whole trace, sampling; then up to the moment when most bytes were live, to look
at the heap as it was then; and it looks for the smallest heap.

Two losses are told apart. *Internal*: pages held in excess of the bytes asked for, by rounding up
to the sizes that are served and by slabs that are not full. *External*: free memory that is there,
but not in one piece.
"""

from dataclasses import dataclass
from typing import NamedTuple

from bsa._core import Allocator, OutOfMemoryError
from bsa.sizing import comfortable, smallest_heap
from bsa.timeline import Timeline, replay
from bsa.trace import Trace
from bsa.units import exact_size, format_size, percent

MOST_SLOTS = 64  # unless asked for: programs may start threads by the hundred


class DoesNotFit(OutOfMemoryError):
    """The trace does not fit into the heap asked for; the text says where, and what would do."""


class Look(NamedTuple):
    """A heap after a replay: its samples, and the states of its pages."""

    timeline: Timeline
    states: bytes

    @property
    def requested(self):
        return self.timeline.requested[-1]

    @property
    def granted(self):
        return self.timeline.granted[-1]

    @property
    def held(self):
        """Bytes of pages that are not free."""
        return self.timeline.allocated[-1]

    @property
    def free(self):
        return self.timeline.managed - self.held

    @property
    def largest_free(self):
        counts = self.timeline.free_blocks[-1]
        orders = [order for order, count in enumerate(counts) if count]
        return self.timeline.page_size << orders[-1] if orders else 0


@dataclass(frozen=True)
class Study:
    """The result. Sizes are bytes."""

    trace: Trace
    name: str
    size: int  #: of the memory given to the heap, metadata included
    cpus: int
    smallest: int  #: the size that would have been enough
    peak: Look
    end: Look

    @property
    def pages(self):
        """Of the heap."""
        return self.end.timeline.managed // self.end.timeline.page_size

    @property
    def internal_loss(self):
        """As text: the part of the pages held at the peak that was not asked for."""
        return percent(self.peak.held - self.peak.requested, self.peak.held)

    @property
    def external_loss(self):
        """As text: the part of the memory free at the peak that is not in the largest block."""
        return percent(self.peak.free - self.peak.largest_free, self.peak.free)

    @property
    def times_peak(self):
        """As text: the smallest heap by the bytes live at the peak, which must not be 0."""
        times = self.smallest / self.peak.requested
        return f"{times:.3g}" if times < 1000 else f"{times:,.0f}"


def study(trace, name, progress, *, size=None, page_size=4096, cpus=None, samples=1000):
    """Replays the trace and returns a Study. `size` None: the smallest heap, and a little more.
    `cpus` None: a slot for each thread. DoesNotFit: `size` is too small."""
    cpus = cpus or min(max(trace.threads, 1), MOST_SLOTS)
    kind = {"page_size": page_size, "cpus": cpus}
    if size is None:
        smallest = _smallest(trace, progress, kind)
        size, end = _look_in_comfort(trace, smallest, samples, progress, kind)
    else:
        end = _look_or_explain(trace, name, size, samples, progress, kind)
        smallest = _smallest(trace, progress, kind)
    peak = _look(trace[: trace.peak[0] + 1], size, 0, progress, kind)
    return Study(trace, name, size, cpus, smallest, peak, end)


def _look(trace, size, samples, progress, kind):
    with Allocator(size, **kind) as heap:
        step = progress.step("replay", len(trace))
        timeline = replay(trace, heap, samples=samples, progress=step)
        return Look(timeline, b"".join(section.page_states() for section in heap.sections))


def _smallest(trace, progress, kind):
    """smallest_heap(), telling of each size that it tries."""

    def tell(size, events_run):
        step = progress.step(f"is {format_size(size)} enough", len(trace))
        if step is not None:
            step(events_run)

    return smallest_heap(trace, progress=tell, **kind)


def _look_in_comfort(trace, smallest, samples, progress, kind):
    """The size of a heap with some room to spare, and the look at it."""
    size = comfortable(smallest)
    try:
        return size, _look(trace, size, samples, progress, kind)
    except OutOfMemoryError:  # rare, but a larger heap may be unlucky; the smallest was tried
        return smallest, _look(trace, smallest, samples, progress, kind)


def _look_or_explain(trace, name, size, samples, progress, kind):
    try:
        return _look(trace, size, samples, progress, kind)
    except OutOfMemoryError as error:
        enough = _smallest(trace, progress, kind)
        raise DoesNotFit(
            f"{name} does not fit into {exact_size(size)}: {error}; "
            f"{format_size(enough)} would be enough (--size {exact_size(comfortable(enough))})"
        ) from error
