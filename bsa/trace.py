"""Traces: what a program asked of malloc, as columns of numbers.

A trace says *that* block 7 was freed, not where it lay: addresses are replaced by small ids that
are used again after a free, so the same trace can be run against any allocator. Reading and
checking are done in C (csrc/hosted/trace_*.c); this file makes a type of it.
"""

import enum
import json
import os
from array import array
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple

from bsa import _core, importers, output_file, trace_file, trace_tools
from bsa.importers import columns_csv, history, rep
from bsa.trace_tools import TraceStatistics
from bsa.units import counted

Path = str | bytes | os.PathLike[str]

COLUMNS = ("op", "id", "size", "align", "thread")
FORMATS = history.FORMATS


class TraceError(_core.AllocError, ValueError):
    """A trace is damaged or no possible history; the text names the line, offset or event."""


class RecordError(_core.AllocError, RuntimeError):
    """Nothing could be recorded. `status` is what a shell would report for the command."""

    def __init__(self, message="", status=1):
        super().__init__(message)
        self.status = status

    def __reduce__(self):
        return type(self), (str(self), self.status)


class TraceOp(enum.IntEnum):
    """What an event does."""

    ALLOC = 1
    ZALLOC = 2  #: zeroed memory, as from calloc
    REALLOC = 3  #: the id stays, the size is new
    FREE = 4


class TraceEvent(NamedTuple):
    """One row of a trace."""

    op: int
    id: int
    size: int  #: bytes asked for; 0 for a free
    align: int  #: alignment asked for; 0 if none was
    thread: int


class Trace:
    """The allocations and frees of a program, in order.

    Trace(op, id, size, align, thread, *, meta=None)

    The columns may be sequences of numbers or buffers of them (unsigned, with 8, 32, 64, 32 and 32
    bits); they are copied and checked. TraceError names the first event that is impossible: an
    unknown operation, an alignment that is no power of two, an id allocated twice or not alive. Ids
    and thread numbers must be below 65536 or the number of events. `meta` is a dict of what JSON
    can hold.

    A trace does not change, but for `meta`, which is yours and does not count in comparisons.
    """

    __slots__ = ("_columns", "_summary", "meta", "__weakref__")

    def __init__(self, op, id, size, align, thread, *, meta=None):
        columns = (op, id, size, align, thread)
        self._set(tuple(map(_column_bytes, COLUMNS, FORMATS, columns)), meta)

    def _set(self, columns, meta):
        try:
            self._summary = _core._check_columns(*columns)
        except ValueError as error:
            raise TraceError(str(error)) from None
        self._columns = columns
        # Through JSON: a copy, and what a file would give back.
        self.meta = json.loads(json.dumps(meta or {}))

    @classmethod
    def _from_columns(cls, columns, meta):
        """A trace of five buffers of the right formats; bytes objects are shared, not copied."""
        trace = cls.__new__(cls)
        trace._set(tuple(map(bytes, columns)), meta)
        return trace

    @classmethod
    def from_events(cls, events, *, meta=None):
        """A trace of an iterable of (op, id, size, align, thread)."""
        columns = tuple(map(array, FORMATS))
        for index, event in enumerate(events):
            try:
                for column, value in zip(columns, event, strict=True):
                    column.append(value)
            except (ValueError, OverflowError) as error:
                raise TraceError(f"event {index}: {error}") from None
        return cls._from_columns(columns, meta)

    @classmethod
    def from_columns(
        cls,
        op: Iterable[int | str],
        id: Iterable[int],
        size: Iterable[int],
        align: Iterable[int] | None = None,
        thread: Iterable[int] | None = None,
        *,
        bad: str = "raise",
        meta: dict[str, Any] | None = None,
    ) -> "Trace":
        """A trace of columns of whole numbers of any kind: lists, arrays, NumPy or pandas columns.

        `op`: numbers of a TraceOp or their names (alloc, zalloc, realloc, free). `id`: any number
        that is the block's own while it lives, as an address. Ids and threads stay as they are
        unless they are too large for a trace of that length; then they are numbered anew. `size` in
        bytes (of a free it does not count); `align` and `thread` are 0 by default. `bad` says what
        becomes of a free or realloc of no live block and of an allocation of a live one, as in
        load; what was bad is counted in `meta`.
        """
        importers.check_options(None, bad)
        try:
            events = history.Events.of_columns(op, id, size, align, thread)
            columns, counts = history.settle(events, bad or "raise", keep=True)
        except ValueError as error:
            raise TraceError(str(error)) from None
        return cls._from_columns(columns, {**(meta or {}), **counts})

    @classmethod
    def load(cls, path: Path, *, format: str | None = None, bad: str | None = None) -> "Trace":
        """Read a trace from a file.

        The format is recognised by content, or it is named:

        - "bsa": a saved trace; "recording": a raw recording
        - "memory_replay": the text format of Android's memory_replay
        - "heaptrack": heaptrack's files, raw or interpreted
        - "csv": comma-separated columns op, id, size, align, thread
        - "rep": traces of the CS:APP malloc lab
        - "perf": `perf script` of kmem:mm_page_alloc and kmem:mm_page_free

        Each may be compressed by gzip or xz, or be the only file of a zip archive, unless that is
        1 GiB unpacked and more than 100 times its size: it may be made to fill the memory.
        docs/traces.md tells what each becomes and what is lost.

        `bad` says what becomes of events that do not fit together. "skip": frees of no live block
        are left out, reallocs of no live block become allocations, before an allocation of a live
        one it is freed; `meta` has the counts. "raise": the first one is a TraceError. Default:
        "raise" for rep and csv, which describe a whole history, "skip" for the others, which saw a
        part of one. A saved trace is always a possible history.

        Anything else, and a file that is damaged, is a TraceError that names the file and the
        place.
        """
        importers.check_options(format, bad)
        with open(path, "rb") as file:
            data = file.read()
        try:
            return cls._from_columns(*importers.read(data, format, bad))
        except (ValueError, RecursionError) as error:
            raise TraceError(f"{os.fsdecode(path)}: {error}") from None

    @staticmethod
    def record(command, path=None, *, env=None):
        """Run a program and return the trace of what it asks of malloc.

        `command` is a sequence of strings, or one string, which is split into words as a shell does
        but not otherwise interpreted: variables and patterns stay as they are, and pipes,
        redirections and the like are a RecordError. `path`: a file in which to save the trace, too;
        what is there already is replaced only if it is empty or a saved trace. `env`: the program's
        environment (default: this process's). In it, PYTHONMALLOC becomes "malloc" unless it is
        set, so that Python programs show all they use.

        The program has this process's input, output and working directory. However it ends, its
        trace is returned: `trace.meta["status"]` is its exit status, or 128 + the signal it died
        of. RecordError: it could not be started, or not be recorded. Meanwhile 24 bytes an event
        are needed beside `path`, or without one in the folder for temporary files.
        """
        from bsa.record import record  # which imports this module

        return record(command, path, env=env).trace

    def save(self, path: Path, *, format: str = "bsa") -> None:
        """Write the trace to a file, which is there as a whole or not at all.

        "bsa" keeps everything and is the smallest. "csv" keeps everything but `meta`. "rep", for
        the malloc lab of CS:APP, also loses threads, alignments, and what was asked for zeroed.
        """
        if format not in _ENCODERS:
            raise ValueError(f"format {format!r} is none of {', '.join(_ENCODERS)}")
        output_file.write(path, _ENCODERS[format](self))

    @property
    def op(self):
        """What each event does: a TraceOp."""
        return self._view(0)

    @property
    def id(self):
        """The block of each event."""
        return self._view(1)

    @property
    def size(self):
        """Bytes asked for, 0 for a free."""
        return self._view(2)

    @property
    def align(self):
        """Alignment asked for, 0 if none was."""
        return self._view(3)

    @property
    def thread(self):
        """Number of the thread, by first appearance."""
        return self._view(4)

    def _view(self, index):
        return memoryview(self._columns[index]).cast(FORMATS[index])

    @property
    def ids(self):
        """The largest id plus 1: an array of that length has room for every block alive at once."""
        return self._summary[0]

    @property
    def threads(self):
        """The largest thread number plus 1."""
        return self._summary[1]

    @property
    def peak(self):
        """(event, bytes): the first event after which the most requested bytes were alive."""
        return self._summary[2:]

    def __len__(self):
        return len(self._columns[0])

    def __iter__(self):
        return map(TraceEvent._make, zip(self.op, self.id, self.size, self.align, self.thread))

    def __getitem__(self, index):
        """trace[i]: one TraceEvent. trace[i:j]: a trace of those events.

        Blocks allocated before i are unknown to trace[i:j]: their frees are dropped, their reallocs
        become allocations, and ids are numbered anew.
        """
        if isinstance(index, slice):
            return self._slice(*index.indices(len(self)))
        return TraceEvent(*(self._view(k)[index] for k in range(len(COLUMNS))))

    def _slice(self, start, stop, step):
        if step != 1:
            raise ValueError("a trace is sliced in steps of 1")
        stop = max(start, stop)
        if start == 0 and max(self.ids, self.threads) <= max(stop, history.FREE_NUMBERS):
            columns = (bytes(self._view(k)[:stop]) for k in range(len(COLUMNS)))
        else:
            columns = _core._slice_columns(*self._columns, start, stop)[:-1]
        return self._from_columns(columns, self.meta)

    def window(self, start: int, stop: int | None = None) -> "Trace":
        """The events from start up to stop, preceded by allocations of the blocks live at start.

        So the heap is as full as it was then, where `trace[start:stop]` begins with an empty one.
        The allocations come in the order of the blocks' births, each in the size the block has at
        start and on the thread that allocated it. Indices as in slices.
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        columns = trace_tools.window(self._views(), start, max(start, stop))
        return self._from_columns(columns, self.meta)

    def scaled(self, factor: int | float | Fraction) -> "Trace":
        """The same events with every size times `factor` (int, float or Fraction), rounded up.

        A float counts as the decimal number it is shown as: 0.1 is a tenth.
        """
        return self._from_columns(trace_tools.scaled(self._views(), factor), self.meta)

    def repeated(self, times: int) -> "Trace":
        """The events `times` times over.

        What survives a round is freed at its end, but for the last, so the peak stays what it is.
        """
        return self._from_columns(trace_tools.repeated(self._views(), times), self.meta)

    @classmethod
    def merged(cls, traces: "Iterable[Trace]", *, meta: dict[str, Any] | None = None) -> "Trace":
        """Several traces as one, as if the programs ran side by side.

        Each keeps its order, and goes on evenly from the first event to the last. Blocks stay
        apart, and so do threads: those of the second trace come after those of the first.
        """
        traces = tuple(traces)
        if not all(isinstance(trace, Trace) for trace in traces):
            raise TypeError("merged() needs an iterable of bsa.Trace")
        return cls._from_columns(trace_tools.merged([trace._views() for trace in traces]), meta)

    def on_threads(self, count: int) -> "Trace":
        """The same events on `count` threads: thread t becomes t modulo count."""
        if count < 1:
            raise ValueError("a trace has one thread or more")
        *columns, threads = self._views()
        columns.append(array("I", [thread % count for thread in threads]))
        return self._from_columns(columns, self.meta)

    def statistics(self) -> TraceStatistics:
        """Sizes, lifetimes, peak, threads ...: a TraceStatistics. One pass over the events."""
        return trace_tools.statistics(self)

    def _views(self):
        return tuple(map(self._view, range(len(COLUMNS))))

    def __eq__(self, other):
        if not isinstance(other, Trace):
            return NotImplemented
        return self._columns == other._columns

    __hash__ = None  # type: ignore[assignment]  # equal traces may differ in `meta`, which is mutable

    def __reduce__(self):
        return _unpickle, (self._columns, self.meta)

    def __repr__(self):
        return (
            f"<bsa.Trace of {counted(len(self), 'event')}: {counted(self.ids, 'id')}, "
            f"{counted(self.threads, 'thread')}, peak {counted(self.peak[1], 'byte')}"
            f"{self._trouble()}>"
        )

    def _trouble(self):
        """What nobody should overlook: that the recorded program failed, or recording it ended."""
        status = self.meta.get("status")
        failed = f", of a program that failed: status {status}" if status else ""
        return failed + (", cut short" if self.meta.get("cut") else "")

    def _repr_html_(self):
        from bsa.trace_html import trace_html  # pictures are needed only where they are shown

        return trace_html(self)


_ENCODERS = {
    "bsa": lambda trace: trace_file.encode(trace._columns, trace.meta),
    "rep": rep.encode,
    "csv": columns_csv.encode,
}


def _unpickle(columns, meta):
    return Trace._from_columns(columns, meta)


def _column_bytes(name, code, values):
    """The numbers of one column as bytes in the machine's own order."""
    try:
        view = memoryview(values)
    except TypeError:
        return _packed(name, code, values)
    if view.ndim != 1 or view.itemsize != array(code).itemsize or view.format not in "BILQ":
        raise TypeError(
            f"{name}: expected a one-dimensional buffer of format {code!r}, "
            f"not {view.ndim}-dimensional {view.format!r}"
        )
    return view.tobytes()


def _packed(name, code, values):
    try:
        return array(code, values).tobytes()
    except OverflowError as error:
        raise TraceError(f"{name}: {error}") from None
