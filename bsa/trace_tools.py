"""What can be done with traces: parts, multiples, several as one, and statistics.

Functions from columns to columns, each a tuple of five arrays or views (op, id, size, align,
thread) of valid traces; the methods of Trace make traces of the results. Each takes one pass, or a
few.
"""

import math
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from bsa.importers.history import ALLOC, FORMATS, FREE, REALLOC, ZALLOC, renumbered


# ---- Making traces of traces ----


def window(columns, start, stop):
    """The events from start up to stop, after allocations of what was live before them."""
    parts = [array(code) for code in FORMATS]
    for event in _live_before(columns, start):
        for part, value in zip(parts, event):
            part.append(value)
    for part, column in zip(parts, columns):
        part.extend(column[start:stop])
    return renumbered(parts)


def _live_before(columns, start):
    """(op, id, size, align, thread) of allocations that make what is live before event `start`.

    Each block in its last size and by the thread that allocated it, in the order of their births.
    """
    live = {}
    for op, id, size, align, thread in zip(*(column[:start] for column in columns)):
        if op == FREE:
            del live[id]
        elif id in live:
            live[id] = (ALLOC, id, size, *live[id][3:])
        else:
            live[id] = (op, id, size, align, thread)
    return live.values()


def scaled(columns, factor):
    """Every size times `factor`, rounded up. A float counts as the number that it is shown as."""
    factor = Fraction(str(factor))
    if factor < 0:
        raise ValueError("a trace is scaled by a factor that is not negative")
    ops, ids, sizes, aligns, threads = columns
    new = {size: math.ceil(size * factor) for size in set(sizes)}
    if max(new.values(), default=0) >> 64:
        raise ValueError("a block of 2^64 bytes or more is no block")
    return ops, ids, array("Q", map(new.__getitem__, sizes)), aligns, threads


def repeated(columns, times):
    """The trace several times over; what survives a round is freed at its end, but for the last."""
    if times < 1:
        raise ValueError("a trace is repeated once or more often")
    survivors = _live_before(columns, len(columns[0]))
    frees = [(FREE, id, 0, 0, thread) for _, id, _, _, thread in survivors]
    between = zip(*frees) if frees else ([],) * len(columns)
    return tuple(
        (array(code, column) + array(code, end)) * (times - 1) + array(code, column)
        for code, column, end in zip(FORMATS, columns, between)
    )


def merged(traces):
    """Events of several traces in one: event i of n in a trace lies at (i + 1/2) / n of the way.

    Each trace has ids and threads of its own."""
    parts = [array("B"), array("Q"), array("Q"), array("I"), array("Q")]
    times, ids, threads = array("d"), 0, 0
    for columns in traces:
        op, id, size, align, thread = columns
        moved = (op, [ids + i for i in id], size, align, [threads + t for t in thread])
        for part, column in zip(parts, moved):
            part.extend(column)
        times.extend((i + 0.5) / len(op) for i in range(len(op)))
        ids += max(id, default=-1) + 1
        threads += max(thread, default=-1) + 1
    order = sorted(range(len(times)), key=times.__getitem__)  # stable: the first trace first
    return renumbered([array(p.typecode, map(p.__getitem__, order)) for p in parts])


# ---- Statistics ----


@dataclass(frozen=True)
class Distribution:
    """How numbers are distributed. Of no numbers at all, everything is 0."""

    count: int
    total: int
    least: int
    median: int  #: the lower one of two
    most: int
    histogram: dict[
        int, int
    ]  #: by the smallest power of two that is not below the number; 0 is its own

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    @classmethod
    def of(cls, numbers: Iterable[int]) -> "Distribution":
        """Of these. O(n log n)."""
        ranked = sorted(numbers)
        return cls(
            count=len(ranked),
            total=sum(ranked),
            least=ranked[0] if ranked else 0,
            median=ranked[(len(ranked) - 1) // 2] if ranked else 0,
            most=ranked[-1] if ranked else 0,
            histogram=_powers_of(ranked),
        )


def _powers_of(ranked):
    """by_power() of numbers in ascending order, by bisection."""
    powers, start, power = {}, 0, 0
    while start < len(ranked):
        end = bisect_right(ranked, power, start)
        if end > start:
            powers[power] = end - start
        start, power = end, 2 * power or 1
    return powers


@dataclass(frozen=True)
class ThreadStatistics:
    """What one thread of a trace does."""

    thread: int
    events: int
    allocations: int
    reallocations: int
    frees: int
    remote_frees: int  #: of blocks that another thread allocated
    requested_bytes: int  #: by its allocations and reallocations


@dataclass(frozen=True)
class TraceStatistics:
    """Figures of a trace: what `Trace.statistics()` returns.

    Requests are allocations and reallocations. A block lives from its allocation to its free,
    whatever reallocations there are in between; its lifetime in bytes is what all threads request
    meanwhile, reallocations included.
    """

    events: int
    allocations: int
    reallocations: int
    frees: int
    peak: tuple[int, int]  #: as Trace.peak: event, bytes
    peak_blocks: int  #: the most blocks that live at once
    survivors: int  #: blocks that are never freed
    survivor_bytes: int  #: in them
    sizes: Distribution  #: of requests, bytes
    common_sizes: tuple[
        tuple[int, int], ...
    ]  #: (bytes, requests), the ten most frequent ones first
    lifetimes: Distribution  #: of the blocks that are freed, in events
    lifetimes_bytes: Distribution  #: of the same, in bytes
    threads: tuple[ThreadStatistics, ...]  #: those that do anything, by number


_COMMON = 10


def statistics(trace):
    """The TraceStatistics of a trace: one pass."""
    life = _Life(trace)
    sizes = [size for op, size in zip(trace.op, trace.size) if op != FREE]
    common = sorted(Counter(sizes).items(), key=lambda item: (-item[1], item[0]))[:_COMMON]
    return TraceStatistics(
        events=len(trace),
        allocations=sum(thread.allocations for thread in life.threads),
        reallocations=sum(thread.reallocations for thread in life.threads),
        frees=sum(thread.frees for thread in life.threads),
        peak=trace.peak,
        peak_blocks=life.peak_blocks,
        survivors=len(life.live),
        survivor_bytes=sum(block[3] for block in life.live.values()),
        sizes=Distribution.of(sizes),
        common_sizes=tuple(common),
        lifetimes=Distribution.of(life.in_events),
        lifetimes_bytes=Distribution.of(life.in_bytes),
        threads=tuple(life.threads),
    )


class _Life:
    """What is to be learnt of the blocks of a trace by following them."""

    def __init__(self, trace):
        # id: (event, bytes requested before it ends, thread, bytes) of its allocation
        self.live = {}
        self.in_events, self.in_bytes = array("Q"), array("Q")
        self.peak_blocks = 0
        counts = Counter(zip(trace.thread, trace.op))
        self._remote = Counter()
        self._requested = Counter()
        self._follow(trace)
        self.threads = [self._thread(thread, counts) for thread in sorted(set(trace.thread))]

    def _follow(self, trace):
        live, total, peak_blocks = self.live, 0, 0
        remote, requested = self._remote, self._requested
        ended, freed_after = self.in_events.append, self.in_bytes.append
        rows = zip(trace.op, trace.id, trace.size, trace.thread)
        for event, (op, id, size, thread) in enumerate(rows):
            if op == FREE:
                birth, before, owner, _ = live.pop(id)
                ended(event - birth)
                freed_after(total - before)
                if owner != thread:
                    remote[thread] += 1
                continue
            total += size
            requested[thread] += size
            if op == REALLOC:
                live[id] = (*live[id][:3], size)
                continue
            live[id] = (event, total, thread, size)
            if len(live) > peak_blocks:
                peak_blocks = len(live)
        self.peak_blocks = peak_blocks

    def _thread(self, thread, counts):
        allocations = counts[thread, ALLOC] + counts[thread, ZALLOC]
        reallocations, frees = counts[thread, REALLOC], counts[thread, FREE]
        return ThreadStatistics(
            thread=thread,
            events=allocations + reallocations + frees,
            allocations=allocations,
            reallocations=reallocations,
            frees=frees,
            remote_frees=self._remote[thread],
            requested_bytes=self._requested[thread],
        )


def request_sizes(trace):
    """A Counter of the sizes of allocations and reallocations."""
    return Counter(size for op, size in zip(trace.op, trace.size) if op != FREE)


def size_histogram(trace):
    """How often each power of two was the smallest to hold a request: {power: requests}.

    Requests are allocations and reallocations; those of 0 bytes count under 0.
    """
    return by_power(request_sizes(trace))


def by_power(counts):
    """How often each power of two was the smallest that is not below a number: {power: times}.

    0 counts under 0.
    """
    powers = Counter()
    for number, times in counts.items():
        powers[1 << (number - 1).bit_length() if number else 0] += times
    return dict(sorted(powers.items()))
