"""From what a source tells to a history that is possible: the half that importers share.

An importer puts events into `Events`, naming blocks by any number that is theirs while they live:
an address, a page frame number, an id. `settle` makes columns of a trace of them. What does not fit
together is dealt with as the caller chose, with bad="raise" or bad="skip":

    a free of a block never seen     unknown_frees     skipped
    a free of a block freed before   double_frees      skipped
    a realloc of no live block       unknown_reallocs  becomes an allocation
    an allocation of a live block    missed_frees      the block is freed first

One pass over the events, with a dictionary of the blocks seen; a second one if they need new
numbers. Functions here raise ValueError for bad data, with the line in its text.
"""

import io
from array import array

from bsa.units import counted

ALLOC, ZALLOC, REALLOC, FREE = 1, 2, 3, 4  # the values of TraceOp, which bsa.trace has

BAD = ("raise", "skip")

# The names that operations have in files and columns.
NAMES = {ALLOC: "alloc", ZALLOC: "zalloc", REALLOC: "realloc", FREE: "free"}
OPS = {**{name: op for op, name in NAMES.items()}, "malloc": ALLOC, "calloc": ZALLOC}

# Of the columns of a trace: op, id, size, align, thread.
FORMATS = ("B", "I", "Q", "I", "I")

# Ids and thread numbers may reach this in short traces; in longer ones, the number of events.
FREE_NUMBERS = 65536

_FOUND = 24  # characters of a damaged line that are shown


class Events:
    """Events in order, as growing columns; `place` says where in the source each was found."""

    COLUMNS = ("op", "block", "size", "align", "thread", "place")

    def __init__(self, unit="line"):
        self.unit = unit  # of the places
        self.op, self.block, self.size = array("B"), array("Q"), array("Q")
        self.align, self.thread, self.place = array("I"), array("Q"), array("Q")

    def columns(self):
        return tuple(getattr(self, name) for name in self.COLUMNS)

    def add(self, place, op, block, size=0, align=0, thread=0):
        """One event. OverflowError: a number is negative, or too large for its column."""
        self.op.append(op)
        self.block.append(block)
        self.size.append(size)
        self.align.append(align)
        self.thread.append(thread)
        self.place.append(place)

    @classmethod
    def of_columns(cls, op, block, size, align, thread):
        """Events of iterables of numbers. ValueError names the column and the event that has none."""
        events = cls("event")
        _fill("op", events.op, map(_number_of_op, _items(op)))
        _fill("id", events.block, _items(block))
        _fill("size", events.size, _items(size))
        zeros = bytes(len(events.op))
        _fill("align", events.align, zeros if align is None else _items(align))
        _fill("thread", events.thread, zeros if thread is None else _items(thread))
        events.place.extend(range(len(events.op)))
        if len(set(map(len, events.columns()))) > 1:
            raise ValueError("columns differ in length")
        return events


def _items(column):
    """Plain numbers: NumPy's own are slow, and no index of an array."""
    return column.tolist() if hasattr(column, "tolist") else column


def _number_of_op(op):
    if isinstance(op, str) and op not in OPS:
        raise TypeError(f"{op!r} is none of {', '.join(OPS)}")
    return OPS.get(op, op)


def _fill(name, column, items):
    try:
        column.extend(items)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{name}: event {len(column)}: {error}") from None


def settle(events, bad, *, keep=False):
    """The columns of a possible history, as five arrays, and the counts of what was bad.

    keep: blocks and threads have small numbers already, see renumbered.
    """
    history, counts = _possible(events, bad)
    return renumbered(history.columns()[:-1], keep=keep), counts


def renumbered(columns, *, keep=True):
    """The same possible history with small ids and threads, as five arrays of the types of a Trace.

    Ids: the one freed last is used first. Threads: by first appearance. keep: numbers stay as they
    are, unless one of the column is too large for a trace of this length.
    """
    op, ids, size, align, threads = columns
    limit = max(FREE_NUMBERS, len(op))
    if not keep or max(ids, default=0) >= limit:
        ids = _dense(op, ids)
    if not keep or max(threads, default=0) >= limit:
        threads = _by_appearance(threads)
    return tuple(map(array, FORMATS, (op, ids, size, align, threads)))


def odd_counts(meta):
    """What was bad, in words; nothing if nothing was."""
    counts = {name: meta.get(name) for name in _REFUSALS}
    return ", ".join(
        counted(count, name[:-1].replace("_", " "))
        for name, count in counts.items()
        if isinstance(count, int) and count
    )


class _Oddities:
    """Counts what is bad, or refuses it."""

    def __init__(self, bad, unit):
        self.counts = dict.fromkeys(_REFUSALS, 0)
        self._refuses, self._unit = bad == "raise", unit

    def meet(self, name, place, block):
        if self._refuses:
            raise ValueError(f"{self._unit} {place}: {_REFUSALS[name].format(f'{block:#x}')}")
        self.counts[name] += 1


_REFUSALS = {
    "unknown_frees": "expected a live block, found a free of {}, which was never allocated",
    "double_frees": "expected a live block, found a free of {}, which was freed before",
    "unknown_reallocs": "expected a live block, found a realloc of {}, which is not live",
    "missed_frees": "expected a new block, found an allocation of {}, which is live",
}


def _possible(events, bad):
    """The events without those that cannot be, and the counts of what was bad."""
    odd = _Oddities(bad, events.unit)
    start, live = _good_beginning(events)
    history = Events()
    for column, source in zip(history.columns(), events.columns()):
        column.extend(source[:start])
    add = history.add
    for op, block, size, align, thread, place in zip(*(c[start:] for c in events.columns())):
        alive = live.get(block)
        if op == FREE:
            if not alive:
                odd.meet("unknown_frees" if alive is None else "double_frees", place, block)
                continue
            live[block] = False
            add(place, FREE, block, thread=thread)
            continue
        if op == REALLOC and not alive:
            odd.meet("unknown_reallocs", place, block)
            op = ALLOC
        elif op != REALLOC and alive:
            odd.meet("missed_frees", place, block)
            add(place, FREE, block, thread=thread)
        live[block] = True
        add(place, op, block, size, align, thread)
    return history, odd.counts


def _good_beginning(events):
    """The number of events up to the first that cannot stay as it is, mostly all; and for the blocks
    seen until then, whether they live. For speed: the events that fit are copied in one piece."""
    live = {}
    rows = zip(events.op, events.block, events.size, events.align)
    for index, (op, block, size, align) in enumerate(rows):
        if op == FREE:
            if not live.get(block) or size or align:
                return index, live
            live[block] = False
        elif op == REALLOC:
            if not live.get(block):
                return index, live
        elif live.get(block):
            return index, live
        else:
            live[block] = True
    return len(events.op), live


def _dense(ops, blocks):
    """Small ids for the blocks of a possible history; the one freed last is used first."""
    ids, spare, live = array("I"), [], {}
    for op, block in zip(ops, blocks):
        if op <= ZALLOC:
            live[block] = id = spare.pop() if spare else len(live)
        elif op == FREE:
            id = live.pop(block)
            spare.append(id)
        else:
            id = live[block]
        ids.append(id)
    return ids


def _by_appearance(threads):
    numbers = {}
    for thread in threads:
        numbers.setdefault(thread, len(numbers))
    return [numbers[thread] for thread in threads]


# ---- Text ----


def lines(data):
    """The lines of a text; the last one must be whole: half a number looks like a number."""
    if data and not data.endswith(b"\n"):
        line = data.count(b"\n") + 1
        raise ValueError(f"line {line}: truncated: it has no newline")
    # One by one: a list of them would take many times the memory of a text of short lines.
    return (row[:-1] for row in io.BytesIO(data))


def expected(line, what, found):
    """The error of a line that holds something else."""
    if isinstance(found, bytes):
        found = found.decode("ascii", "replace")
    found = "".join(c if c.isprintable() else "?" for c in found.strip())
    found = f"{found[:_FOUND]!r}" if found else "the end of the line"
    return ValueError(f"line {line}: expected {what}, found {found}")
