"""Synthetic workloads: traces of programs that there are not, for experiments that vary one thing.

Every function returns a Trace, the same one for the same arguments on every Python and machine:
chance comes from `random.Random(seed).random()` alone, whose sequence Python guarantees, and from
whole numbers. The arguments are in `trace.meta`, so a trace says how to make it again. A million
events take a second or two.

`sizes` is a range of bytes, (least, most). The power of two is chosen evenly, then the size within
it: of (16, 4095) as many requests fall into 16..31 as into 2048..4095, as programs ask for small
blocks more often than for large ones.
"""

import operator
from array import array
from collections import deque
from random import Random

from bsa.importers.history import ALLOC, FREE
from bsa.trace import Trace

_SIZES = (16, 4095)


def fill_and_churn(
    events: int = 100_000,
    *,
    live: int = 10_000,
    sizes: tuple[int, int] = _SIZES,
    seed: int = 0,
) -> Trace:
    """Fills to `live` blocks, then replaces blocks chosen by chance: a server in its steady state.

    From then on each free is followed by an allocation. What lives at the end is not freed.
    """
    _check(events=events, live=live)
    size = _sizes(sizes, rng := _chance(seed))
    history = _History()
    blocks = [history.alloc(size()) for _ in range(min(live, events))]
    while len(history) < events:
        history.free(_take(blocks, rng))
        if len(history) < events:
            blocks.append(history.alloc(size()))
    return history.trace("fill_and_churn", events=events, live=live, sizes=sizes, seed=seed)


def ramp(events: int = 100_000, *, sizes: tuple[int, int] = _SIZES, seed: int = 0) -> Trace:
    """Allocates all blocks, then frees them in an order left to chance: load, tear down."""
    _check(events=events)
    size = _sizes(sizes, rng := _chance(seed))
    history = _History()
    blocks = [history.alloc(size()) for _ in range(events - events // 2)]
    while len(history) < events:
        history.free(_take(blocks, rng))
    return history.trace("ramp", events=events, sizes=sizes, seed=seed)


def sawtooth(
    events: int = 100_000,
    *,
    teeth: int = 10,
    kept: float = 0.05,
    sizes: tuple[int, int] = _SIZES,
    seed: int = 0,
) -> Trace:
    """Rises and falls `teeth` times: phases, each of which leaves a part of its blocks behind.

    At the end of a tooth its blocks are freed in order of age, but for the share `kept` of them,
    chosen by chance, which stay for good: what pins memory for the next tooth.
    """
    _check(events=events, teeth=teeth)
    if not 0 <= kept <= 1:
        raise ValueError(f"kept is a share, not {kept}")
    size = _sizes(sizes, rng := _chance(seed))
    history = _History()
    for tooth in range(teeth):
        room = events * (tooth + 1) // teeth - len(history)
        frees = int(room * (1 - kept) / (2 - kept))
        blocks = [history.alloc(size()) for _ in range(room - frees)]
        for id in _chosen(frees, blocks, rng):
            history.free(id)
    arguments = dict(events=events, teeth=teeth, kept=kept, sizes=sizes, seed=seed)
    return history.trace("sawtooth", **arguments)


def bimodal(
    events: int = 100_000,
    *,
    live: int = 10_000,
    small: tuple[int, int] = (16, 127),
    large: tuple[int, int] = (8192, 65535),
    large_share: float = 0.02,
    seed: int = 0,
) -> Trace:
    """As fill_and_churn, with many small blocks and a share of large ones.

    Small blocks live ten times as long, and come to lie between the large ones.
    """
    _check(events=events, live=live)
    if not 0 <= large_share <= 1:
        raise ValueError(f"large_share is a share, not {large_share}")
    rng = _chance(seed)
    small_size, large_size = _sizes(small, rng), _sizes(large, rng)
    smalls: list[int] = []
    larges: list[int] = []
    history = _History()
    while len(history) < events:
        if len(smalls) + len(larges) < live:
            if rng() < large_share:
                larges.append(history.alloc(large_size()))
            else:
                smalls.append(history.alloc(small_size()))
        else:
            goes_large = rng() * (len(smalls) + 10 * len(larges)) >= len(smalls)
            history.free(_take(larges if goes_large else smalls, rng))
    arguments = dict(events=events, live=live, small=small, large=large, large_share=large_share)
    return history.trace("bimodal", **arguments, seed=seed)


def producer_consumer(
    events: int = 100_000,
    *,
    queue: int = 1_000,
    sizes: tuple[int, int] = _SIZES,
    seed: int = 0,
) -> Trace:
    """Thread 0 allocates messages, thread 1 frees them in order: every free is a remote one.

    At most `queue` messages wait; how many there are wanders by chance. What waits at the end is
    not freed.
    """
    _check(events=events, queue=queue)
    size = _sizes(sizes, rng := _chance(seed))
    history = _History()
    waiting: deque[int] = deque()
    while len(history) < events:
        if not waiting or len(waiting) < queue and rng() < 0.5:
            waiting.append(history.alloc(size()))
        else:
            history.free(waiting.popleft(), thread=1)
    return history.trace("producer_consumer", events=events, queue=queue, sizes=sizes, seed=seed)


def buddy_adversary(orders: int = 8, *, unit: int = 4096, blocks: int | None = None) -> Trace:
    """Bad for a buddy allocator, whose heap must have 1 + orders / 2 times the peak of live bytes.

    Knuth, The Art of Computer Programming, vol. 1, section 2.5, exercise 41: reserve n blocks of
    one unit; then for k = 1, 2, ... `orders` free all whose place is not divisible by 2^k and
    reserve n / 2^(k + 1) blocks of 2^k units. What stays is one block in every 2^k units, so that
    none of the new blocks fits into what was freed: each of the `orders` rounds takes n / 2 fresh
    units, while never more than n are live. No sequence needs more than 1 + orders times n (same
    exercise).

    The trace supposes that blocks of a size come to lie one after the other, as a buddy allocator
    places them in an empty heap. unit: bytes of the smallest block: a page of the heap that it is
    for, or nothing but slabs would be met. blocks: n, a multiple of 2^(orders + 1) (default:
    four times that). Nothing is left to chance.
    """
    n = 4 << orders + 1 if blocks is None else blocks
    _check(orders=orders, unit=unit, blocks=n)
    if n % (1 << orders + 1):
        raise ValueError(f"blocks is a multiple of {1 << orders + 1}, not {n}")
    history = _History()
    places = {place: history.alloc(unit) for place in range(n)}
    for k in range(1, orders + 1):
        for place in [place for place in places if place % (1 << k)]:
            history.free(places.pop(place))
        start = n + (k - 1) * n // 2
        for place in range(start, start + n // 2, 1 << k):
            places[place] = history.alloc(unit << k)
    return history.trace("buddy_adversary", orders=orders, unit=unit, blocks=n)


# ---- What they are made of ----


def _check(**numbers):
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is 1 or more, not {number}")


def _chance(seed):
    """A function that returns numbers from 0 up to 1. TypeError: the seed is no whole number."""
    return Random(operator.index(seed)).random


def _sizes(bounds, rng):
    """A function that draws a size. The choice of the power of two is even over those in range."""
    least, most = bounds
    if not 1 <= least <= most:
        raise ValueError(f"sizes are (least, most) with 1 <= least <= most, not {bounds}")
    ranges = []
    while least <= most:
        end = min(most + 1, 1 << least.bit_length())
        ranges.append((least, end - least))
        least = end

    def draw():
        low, width = ranges[int(rng() * len(ranges))]
        return low + int(rng() * width)

    return draw


def _take(blocks, rng):
    """Takes a block chosen by chance out of the list; the last one takes its place."""
    place = int(rng() * len(blocks))
    id = blocks[place]
    blocks[place] = blocks[-1]
    blocks.pop()
    return id


def _chosen(count, blocks, rng):
    """So many of the blocks, each set of them as likely as another, in order (Knuth, The Art of
    Computer Programming, vol. 2, section 3.4.2, algorithm S)."""
    for place, id in enumerate(blocks):
        if rng() * (len(blocks) - place) < count:
            count -= 1
            yield id


class _History:
    """Events as they are thought up. The id freed last is used first, as everywhere."""

    def __init__(self):
        self._op, self._id, self._size, self._thread = [], [], [], []
        self._spare, self._ids = [], 0

    def __len__(self):
        return len(self._op)

    def alloc(self, size, thread=0):
        """Returns the new block's id."""
        if self._spare:
            id = self._spare.pop()
        else:
            id = self._ids
            self._ids += 1
        self._put(ALLOC, id, size, thread)
        return id

    def free(self, id, thread=0):
        self._spare.append(id)
        self._put(FREE, id, 0, thread)

    def _put(self, op, id, size, thread):
        self._op.append(op)
        self._id.append(id)
        self._size.append(size)
        self._thread.append(thread)

    def trace(self, name, **arguments):
        """The Trace, which says how to make it again."""
        meta = {"source": "synthetic", "workload": name, **arguments}
        align = array("I", bytes(4 * len(self)))
        return Trace(self._op, self._id, self._size, align, self._thread, meta=meta)
