"""heaptrack's files: every malloc and free of a program, raw or interpreted.

Format (version 3, which heaptrack 1.4 and 1.5 write; versions 1 and 2, of heaptrack 1.0 and 1.1, are
the same in all that is read): lines of a letter and hexadecimal numbers.

    v 10400 3         version of heaptrack, of the format
    X ./program       the command; it may go on over several lines, up to the line I
    + 64 8 55d1e0     raw: an allocation: bytes, backtrace, address
    - 55d1e0          raw: a free: address
    a 64 8            interpreted: a kind of allocation, numbered from 0: bytes, backtrace
    + 2               interpreted: an allocation of that kind
    - 2               interpreted: a free of a block of that kind
    A                 heaptrack was attached to a program that ran already: passed over
    t s i m x c R S # backtraces, names, times ...: passed over

`heaptrack --raw` writes raw files, plain `heaptrack` interpreted ones; both compress them, by zstd
or gzip. In an interpreted file blocks have no names: of the live blocks of a kind (same size, same
backtrace) a free takes the one allocated last, so lifetimes are exact for kinds with one block at a
time, and sizes and live bytes always.

Lost, because heaptrack does not write it: threads (all is on thread 0), alignments, whether memory
was asked for zeroed, and reallocs, which are written as a free and an allocation.
"""

import re

from bsa.importers.history import ALLOC, FREE, Events, expected, lines, settle

BAD = "skip"  # blocks that were there before heaptrack came are freed, too

_START = re.compile(rb"v [0-9a-f]+(?: ([0-9a-f]+))?\r?\n")
_VERSION = 3  # the last one there is
_PASSED_OVER = frozenset(b"#ARSXciImpstvx")
_LONGEST_COMMAND = 1 << 16  # bytes of it that are kept


def recognises(data):
    return _START.match(data) is not None


def read(data, bad):
    """The columns and meta of a heaptrack file."""
    _check_version(data)
    source = _Source()
    rows = enumerate(lines(data), 1)
    for line, row in rows:
        start = row[:2]
        if start == b"+ ":
            source.allocate(line, row)
        elif start == b"- ":
            source.free(line, row)
        elif start == b"a ":
            source.define(line, row)
        elif start == b"X ":
            command = row[2:_LONGEST_COMMAND].decode("utf-8", "replace")
            source.meta["command"] = command.split()
            _pass_over_command(line, rows)
        elif row and row[0] not in _PASSED_OVER:
            raise expected(line, "a line of heaptrack", row)
    columns, counts = settle(source.events, bad)
    return columns, {**source.meta, **counts}


def _check_version(data):
    start = _START.match(data)
    if start is None:
        raise expected(1, "the version of heaptrack, v and one or two numbers", data[:32])
    if int(start[1] or b"0", 16) > _VERSION:
        raise expected(1, f"a format of version {_VERSION} or before", start[0])


def _pass_over_command(line, rows):
    """Up to the line I, which heaptrack always writes next. Arguments may hold any lines."""
    for _, row in rows:
        if row.startswith(b"I "):
            return
    raise ValueError(f"line {line}: expected a line I after the command, found the end of the file")


class _Source:
    """What the lines say, as events."""

    def __init__(self):
        self.events = Events()
        self.meta = {}
        self._sizes = []  # of the kinds of an interpreted file
        self._live = []  # and their live blocks, by the number of the allocation
        self._blocks = 0

    def allocate(self, line, row):
        numbers = _numbers(line, row)
        if len(numbers) == 3:
            size, _, block = numbers
        elif len(numbers) == 1:
            kind = self._kind(line, row, numbers[0])
            size, block = self._sizes[kind], self._blocks
            self._live[kind].append(block)
            self._blocks += 1
        else:
            raise expected(line, "bytes, backtrace and address, or a kind", row)
        self._add(line, row, ALLOC, block, size)

    def free(self, line, row):
        numbers = _numbers(line, row)
        if len(numbers) != 1:
            raise expected(line, "an address or a kind", row)
        block = numbers[0]
        if self._sizes:
            live = self._live[self._kind(line, row, block)]
            block = live.pop() if live else (1 << 64) - 1  # which no allocation has
        self._add(line, row, FREE, block)

    def define(self, line, row):
        numbers = _numbers(line, row)
        if len(numbers) != 2:
            raise expected(line, "bytes and a backtrace", row)
        self._sizes.append(numbers[0])
        self._live.append([])

    def _kind(self, line, row, kind):
        if not 0 <= kind < len(self._sizes):
            raise expected(line, f"a kind below {len(self._sizes):x}", row)
        return kind

    def _add(self, line, row, op, block, size=0):
        try:
            self.events.add(line, op, block, size)
        except OverflowError:
            raise expected(line, "numbers below 2^64", row) from None


def _numbers(line, row):
    try:
        return [int(word, 16) for word in row[2:].split()]
    except ValueError:
        raise expected(line, "hexadecimal numbers", row) from None
