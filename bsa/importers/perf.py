"""`perf script` of page allocations in Linux: the events kmem:mm_page_alloc and kmem:mm_page_free.

    perf record -a -e kmem:mm_page_alloc -e kmem:mm_page_free -o pages.data -- sleep 10
    perf script -i pages.data > pages.txt

Format (Linux, include/trace/events/kmem.h and Documentation/trace/events-kmem.rst): a line an
event, of which the CPU in brackets, the page frame number (decimal, in newer kernels hexadecimal)
and the order are read.

    dd 6429 [003] 22.498450: kmem:mm_page_alloc: page=0x176a17 pfn=1534487 order=0 migratetype=0 ...
    dd 6429 [003] 22.498467: kmem:mm_page_free: page=0x176a17 pfn=1534487 order=0

The text of ftrace (`trace`, `trace_pipe`) and of `trace-cmd report` is the same in these. So is what
perf and trace-cmd write of a kernel whose formats they do not understand, with the fields as stored:

    dd-6429 [003] 22.498450: mm_page_alloc: [FAILED TO PARSE] pfn=0x176a17 order=0 gfp_flags=...

Before Linux 3.3 there are mm_page_free_direct and mm_pagevec_free instead of mm_page_free; together
they are the same.

An allocation of order o becomes an ALLOC of 4096 * 2^o bytes (`scaled(4)` is right for pages of 16
KiB); each CPU is a thread, as the page allocator's lists are per CPU; without CPUs all is thread 0.
A block that is freed in pieces (the kernel may split it) lives until its last piece is freed; frees
of another order than the block's are counted as pieces. Failed allocations (page frame 0, or -1 as
stored) are counted as skipped; and so are, as lost, the events of which the source says that it lost
them. Other events (mm_page_free_batched, which only repeats mm_page_free, among
them), call chains, comments and empty lines are passed over.

Lost: the physical address, the type of memory asked for (gfp_flags, migratetype), natural
alignment, processes, times and callers. A source of this kind sees only a part: what was allocated
before it began is freed in it. What perf itself lost, `perf script --show-lost-events` tells.
"""

import re

from bsa.importers.history import ALLOC, FREE, Events, expected, lines, settle

BAD = "skip"

PAGE = 4096
_MAX_ORDER = 20  # more than any kernel has

_FAILED = {0, (1 << 64) - 1, (1 << 32) - 1}  # page frames of allocations that failed
_EVENT = re.compile(rb"\bmm_page(?:_(alloc|free)|_free_direct|vec_free): ")
_FIELDS = re.compile(
    rb" *(?:page= *\S+|\[FAILED TO PARSE\]) pfn=(0x)?([0-9a-f]+) order=(\d+)(?=\s|$)"
)
_LOST = re.compile(rb"\[LOST (\d+) EVENTS\]|\[(\d+) EVENTS DROPPED\]|PERF_RECORD_LOST lost (\d+)")
_OTHER = re.compile(rb"\s*(?:$|#|=>|[0-9a-f]+ |cpus=\d)|.*\d\.\d+: +\S")


def recognises(data):
    return _EVENT.search(data) is not None


def read(data, bad):
    """The columns and meta of a text that `perf script` or ftrace wrote."""
    pages = _Pages()
    for line, row in enumerate(lines(data), 1):
        if event := _EVENT.search(row):
            pages.event(line, row, event)
        elif lost := _LOST.search(row):
            pages.lost += int(lost[lost.lastindex])
        elif not _OTHER.match(row):
            raise expected(line, "an event, a call chain or a comment", row)
    columns, counts = settle(pages.events, bad)
    counted = {"skipped": pages.failed, "pieces": pages.pieces, "lost": pages.lost}
    return columns, {**counted, **counts}


def _cpu(head):
    """The number in the last brackets before the event; 0 if there are none."""
    _, bracket, rest = head.rpartition(b"[")
    return int(rest.partition(b"]")[0]) if bracket else 0


class _Pages:
    """The blocks of pages that are live, and what happened to them."""

    def __init__(self):
        self.events = Events()
        self.failed = self.pieces = self.lost = 0
        self._live = {}  # first page: [order, pages not yet freed]

    def event(self, line, row, event):
        """`event` matches its name in the row."""
        fields = _FIELDS.match(row, event.end())
        if fields is None:
            raise expected(line, "page, pfn and order of a page event", row[event.end() :])
        is_hex, pfn, order = fields.groups()
        try:
            pfn, cpu = int(pfn, 16 if is_hex else 10), _cpu(row[: event.start()])
            self._add(line, cpu, event[1], pfn, int(order))
        except (ValueError, OverflowError):
            raise expected(line, "numbers of a page event", row) from None

    def _add(self, line, cpu, what, pfn, order):
        if order > _MAX_ORDER:
            raise ValueError("no such order")
        if what != b"alloc":
            self._free(line, cpu, pfn, order)
        elif pfn in _FAILED:
            self.failed += 1
        else:
            self._live[pfn] = [order, 1 << order]
            self.events.add(line, ALLOC, pfn, PAGE << order, 0, cpu)

    def _free(self, line, cpu, pfn, order):
        head = self._head(pfn, order)
        if head is None:
            self.events.add(line, FREE, pfn, thread=cpu)  # of a block that is not known
            return
        block = self._live[head]
        block[1] -= 1 << order
        self.pieces += order != block[0]
        if block[1] <= 0:
            del self._live[head]
            self.events.add(line, FREE, head, thread=cpu)

    def _head(self, pfn, order):
        """The first page of the live block that holds the pages, or None. Blocks are aligned to
        their size, so there is one candidate for each order."""
        if pfn in self._live:
            return pfn
        for candidate in range(order, _MAX_ORDER + 1):
            head = pfn >> candidate << candidate
            if head in self._live and self._live[head][0] >= candidate:
                return head
        return None
