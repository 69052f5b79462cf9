"""Metrics of memory use and fragmentation: what they mean, their formulas, and where they come from.

Everything here is a pure function, written to be read. `free_blocks` is the number of free blocks of
each order, from single pages up, as Allocator.free_blocks() or a row of Timeline.free_blocks gives
it, or a line of Linux's /proc/buddyinfo; a block of order o has 2^o pages. A replay computes the same
in C for each sample, in O(orders).

Internal loss needs no function: a replay counts bytes. Of what it holds, class_rounding is the sum
of (size class - requested) over live objects, page_rounding that of (2^o pages - requested) over
live page blocks, and slab_slack the pages of slabs less the size classes of their live objects; so
the pages held are `requested` and these three. (Internal and external fragmentation are told apart
by Randell, "A note on storage fragmentation and program segmentation", 1969.)

Only free_runs looks at more than these counts: what is contiguous by address, whatever the buddies
say, must be looked up page by page. So it is a function of a heap, and no column of a Timeline.
"""

import math
import re

HUGE_PAGE = 2 << 20  #: bytes

# ---- What is free, in which pieces ----


def free_pages(free_blocks):
    """Sum of 2^o over all free blocks: pages."""
    return sum(count << order for order, count in enumerate(free_blocks))


def largest_hole(free_blocks):
    """Pages of the largest free block: what the largest request that succeeds may ask for, rounded
    to a power of two. 0 if nothing is free."""
    return max((1 << order for order, count in enumerate(free_blocks) if count), default=0)


def usable_pages(free_blocks, order):
    """Pages in free blocks of at least 2^order pages: all of them can serve such requests."""
    return free_pages(count if o >= order else 0 for o, count in enumerate(free_blocks))


def unusable_free_index(free_blocks, order):
    """Linux's unusable free space index, in thousandths: the share of the free pages that cannot
    serve a request of 2^order pages.

    floor(1000 (free - usable) / free); 1000 where nothing is free. 0: all of it could be used,
    1000: such a request fails. From Gorman and Whitcroft, "The what, the why and the where to of
    anti-fragmentation" (2006); the arithmetic is unusable_free_index() of Linux's mm/vmstat.c.
    """
    free = free_pages(free_blocks)
    if free == 0:
        return 1000
    return (free - usable_pages(free_blocks, order)) * 1000 // free


def fragmentation_index(free_blocks, order):
    """Linux's fragmentation index, in thousandths: why a request of 2^order pages would fail.

    1000 - floor((1000 + floor(1000 free / 2^order)) / blocks), of the number of free pages and of
    free blocks. Towards 0 for lack of memory, towards 1000 for fragmentation; -1000 where the
    request would succeed, and 0 where nothing is free. The arithmetic is fragmentation_index() of
    Linux's mm/vmstat.c; /sys/kernel/debug/extfrag/extfrag_index shows it.
    """
    blocks = sum(free_blocks)
    if blocks == 0:
        return 0
    if usable_pages(free_blocks, order):
        return -1000
    return 1000 - (1000 + free_pages(free_blocks) * 1000 // (1 << order)) // blocks


def extfrag_for_order(free_blocks, order):
    """Linux's external fragmentation of a zone for an order, in per cent.

    floor(100 (free - usable) / free): the unusable index once more, but 0 where nothing is free,
    where that says 1000. The arithmetic is extfrag_for_order() of Linux's mm/vmstat.c, from which
    proactive compaction takes its score.
    """
    free = free_pages(free_blocks)
    if free == 0:
        return 0
    return (free - usable_pages(free_blocks, order)) * 100 // free


def sum_of_squares_index(free_blocks):
    """How far free memory is from being one block: 0 to 1.

    1 - sqrt(sum of s^2) / sum of s, over the sizes s of all free blocks; 0 where nothing is free.
    n equal blocks give 1 - 1/sqrt(n). It needs no order to be asked about, and small blocks beside
    large ones hardly count. Described by Sawicki, "A metric for memory fragmentation" (2022), and
    used in the ESP8266's and Pigweed's allocators.
    """
    free = free_pages(free_blocks)
    squares = sum(count << 2 * order for order, count in enumerate(free_blocks))
    return 1 - math.sqrt(squares) / free if free else 0.0


def huge_share(free_blocks, page_size=4096):
    """The share of free memory, 0 to 1, in blocks of a huge page (2 MiB) or more; 0 where nothing is
    free. Buddy blocks are aligned to their size, so all of it could back huge pages, if the pages'
    real addresses keep the alignment."""
    free = free_pages(free_blocks)
    order = (HUGE_PAGE // page_size).bit_length() - 1
    return usable_pages(free_blocks, order) / free if free else 0.0


# ---- What buddies cannot merge ----


def free_runs(allocator):
    """Runs of free pages that are contiguous by address: a tuple of page counts, in address order.

    Buddies merge only in pairs at multiples of their size, so one run may be many free blocks. The
    difference between what the runs could serve (unusable_of_runs) and what the blocks can
    (unusable_free_index) is what the buddy system itself costs. Runs do not reach across sections.
    O(pages).
    """
    return tuple(
        len(run)
        for section in allocator.sections
        for run in re.findall(rb"\0+", section.page_states())
    )


def unusable_of_runs(runs, order):
    """The unusable free space index that the runs would have if requests of 2^order pages could start
    at any page: never more than that of the buddy's blocks. In thousandths, 1000 where nothing is
    free."""
    free = sum(runs)
    if free == 0:
        return 1000
    return sum(run % (1 << order) for run in runs) * 1000 // free


# ---- Footprints ----


def mean_footprint(used, live):
    """Memory used relative to memory live, averaged over all points in time: 1 is perfect.

    Mean of used[i] / live[i]; points at which nothing is live are left out, and nan if there are no
    others. `used`: bytes the allocator keeps from being used otherwise; `live`: bytes the program
    has asked for and not freed, at the same points. Measure (1) of Johnstone and Wilson, "The memory
    fragmentation problem: solved?" (1998), who print it less 1, in per cent, and count time in bytes
    allocated; a replay's samples are spaced by events. Averaging hides peaks.
    """
    ratios = [u / at for u, at in zip(used, live, strict=True) if at > 0]
    return math.fsum(ratios) / len(ratios) if ratios else math.nan


def peak_footprint(used, live):
    """The most memory used relative to the most memory live, which may be at another time.

    max(used) / max(live), nan if nothing is ever live. Measure (4) of Johnstone and Wilson: what
    must be paid for by what was needed. (Their measures (2) and (3) take both at one time: that of
    the most memory live, or used.)
    """
    most = max(live, default=0)
    return max(used) / most if most > 0 else math.nan


def times_peak(smallest, peak):
    """The headline: bytes of the smallest heap that completes the trace (smallest_heap) by the most
    bytes that are live (Trace.peak). nan if nothing ever is."""
    return smallest / peak if peak > 0 else math.nan


def knuth_bound(live, order):
    """Pages that are always enough for a buddy system: (r + 1) n.

    `live`: the most pages that are in use at any time, in blocks of 1 to 2^order pages; n is that,
    rounded up to a multiple of 2^r, and r the order. Knuth, The Art of Computer Programming, vol. 1,
    section 2.5, exercise 41, which also has requests that need (1 + r/2) n. Blocks count in powers
    of two, as they are served.
    """
    largest = 1 << order
    return (order + 1) * -(-live // largest) * largest
