"""`.rep` files: the traces of the malloc lab of "Computer Systems: A Programmer's Perspective".

Format (the lab's traces/README): a header of numbers, one a line, then one request a line.

    20000       suggested heap size (or, in newer labs, the trace's weight)
    3           number of ids
    4           number of requests
    1           weight (or something else that is not used)
    a 0 512     allocate: id, bytes
    r 0 640     reallocate: id, bytes
    f 0         free: id
    f -1        free(NULL), which does nothing

Some labs leave out the first and the last number of the header. Lines may end in CR LF; empty ones
are passed over.

Read: `a`, `r` and `f` become ALLOC, REALLOC and FREE with the same ids; `f -1` is counted as
skipped. `r` with 0 bytes keeps its block, which has no bytes then. All is on thread 0, no alignment
is asked for. Lost: heap size and weight. The number of requests must be right, and ids below the
number of ids: a file that was cut is refused.

Written: the header of four numbers (the peak of live bytes, ids, requests, 1) and the same
requests. Lost: threads, alignments, and that memory was asked for zeroed. An id is used again once
its block was freed.
"""

import re
from itertools import chain

from bsa.importers.history import ALLOC, FREE, REALLOC, Events, expected, lines, settle

BAD = "raise"  # a complete description: what does not fit together is a mistake

_START = re.compile(rb"\s*-?\d+\s+\d+(?:\s+\d+\s+-?\d+)?\s*(?:[arf]\s|\Z)")
_OPS = {b"a": ALLOC, b"r": REALLOC, b"f": FREE}
_LETTERS = {1: "a", 2: "a", 3: "r"}


def recognises(data):
    return _START.match(data) is not None


def read(data, bad):
    """The columns and meta of a `.rep` file."""
    ids, requests, rows = _header(enumerate(lines(data), 1))
    events, nothing, found = Events(), 0, 0
    for line, row in rows:
        words = row.split()
        if words:
            found += 1
            if words == [b"f", b"-1"]:
                nothing += 1
            else:
                events.add(line, *_request(words, line, row, ids))
    if found != requests:
        end = data.count(b"\n") + 1
        raise ValueError(f"line {end}: expected {requests} requests, found {found}")
    columns, counts = settle(events, bad, keep=True)
    return columns, {"skipped": nothing, **counts}


def _header(rows):
    """(ids, requests, the numbered lines from the first request on)."""
    numbers = []
    for line, row in rows:
        words = row.split()
        if words and words[0].isalpha():
            rows = chain([(line, row)], rows)
            break
        try:
            numbers += map(int, words)
        except ValueError:
            raise expected(line, "a number of the header or a request", row) from None
    if len(numbers) not in (2, 4):
        raise ValueError(f"line 1: expected a header of 2 or 4 numbers, found {len(numbers)}")
    ids, requests = numbers if len(numbers) == 2 else numbers[1:3]
    return min(ids, 1 << 64), requests, rows  # no more ids can be told apart


def _request(words, line, row, ids):
    """(op, id, size)."""
    op = _OPS.get(words[0])
    if op is None:
        raise expected(line, "a request: a, r or f", row)
    if len(words) != (2 if op == FREE else 3):
        raise expected(line, "an id" if op == FREE else "an id and a size", row)
    try:
        id, size = int(words[1]), int(words[2]) if op != FREE else 0
    except ValueError:
        raise expected(line, "whole numbers", row) from None
    if not 0 <= id < ids:
        raise expected(line, f"an id from 0 to {ids - 1}", row)
    if not 0 <= size < 1 << 64:
        raise expected(line, "a size below 2^64", row)
    return op, id, size


def encode(trace):
    """The bytes of a `.rep` file."""
    requests = (
        f"f {id}" if op == FREE else f"{_LETTERS[op]} {id} {size}"
        for op, id, size in zip(trace.op, trace.id, trace.size)
    )
    header = (str(number) for number in (trace.peak[1], trace.ids, len(trace), 1))
    return "".join(f"{line}\n" for part in (header, requests) for line in part).encode("ascii")
