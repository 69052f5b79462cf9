"""One trace in many heaps: a table of what each needs and loses, beside what other allocators would.

Every row is a task of its own, so they can run anywhere: in processes of this machine, in threads
(the work is in C, without the GIL), or wherever an executor of somebody else's takes them. A task
never raises: what goes wrong is what its row says.
"""

import difflib
import functools
import math
import os
import pickle
import signal
import threading
import zlib
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from bsa import _core, metrics
from bsa.progress import Progress
from bsa.sizing import smallest_heap
from bsa.study import MOST_SLOTS
from bsa.timeline import Timeline, columns, fullest, replay
from bsa.trace import Trace
from bsa.units import counted, format_size, printable

OPTIONS = ("size", "page_size", "cpus", "phys", "limit", "on_oom")  #: of a configuration

REFERENCES = ("first fit", "best fit", "tlsf")  #: in the order of enum bsa_placement_policy

#: What rows tell: name, and what it means. Bytes, where nothing else is said.
COLUMNS = {
    "size": "memory of the heap, metadata included; of a reference, how far its heap ever reaches",
    "times_peak": "`size` by the most bytes live: what the trace costs, as a ratio",
    "peak_allocated": "the most bytes of pages in use",
    "class_rounding": "lost to size classes, when most of the pages are in use",
    "page_rounding": "lost to powers of two of pages, then",
    "slab_slack": "unused in slabs' pages, then",
    "free": "free, then",
    "largest_free": "the largest free block, then",
    "sum_of_squares_index": "how far the free memory is from being one block, then: 0 to 1",
    "huge_share": "the share of it in blocks of 2 MiB or more, then: 0 to 1",
    "mean_footprint": "pages in use by bytes live, averaged over the samples: a ratio",
    "peak_footprint": "the most pages in use by the most bytes live: a ratio",
}


@dataclass(frozen=True)
class Row:
    """One heap, or one reference, that the trace was run in."""

    name: str  #: or whatever key the configuration has
    options: dict  #: what it was asked for with
    #: by the names of COLUMNS; a reference has `size` and `times_peak` only, a failure nothing
    metrics: dict = field(default_factory=dict)
    timeline: Timeline | None = None  #: of a heap that the trace fits into
    error: str = ""  #: why there are no metrics


class Comparison(Mapping):
    """The rows by name, in the order asked for; references last. A read-only mapping; it pickles.

    `trace_peak` is the most bytes live in the trace, and `events` its length.
    """

    def __init__(self, rows, events, trace_peak):
        self._rows = {row.name: row for row in rows}
        self.events = events
        self.trace_peak = trace_peak

    def __getitem__(self, name):
        return self._rows[name]

    def __iter__(self):
        return iter(self._rows)

    def __len__(self):
        return len(self._rows)

    @property
    def rows(self):
        """All Rows."""
        return tuple(self._rows.values())

    def column(self, name):
        """One of COLUMNS, an entry for each row; None where a row has none."""
        if name not in COLUMNS:
            raise KeyError(name)
        return tuple(row.metrics.get(name) for row in self.rows)

    def table(self):
        """All rows as text."""
        lines = [["", *(heading for heading, _, _ in SHOWN)], *map(texts_of, self.rows)]
        widths = [max(len(cells[0]) for cells in lines)]
        full = [cells for cells in lines if len(cells) > 2]
        widths += [max(map(len, column)) for column in list(zip(*full))[1:]]
        return "\n".join(_line(cells, widths) for cells in lines)

    def plot(self, ax=None):
        """Draw a bar for each row with matplotlib: into `ax` or the current axes, which are returned.
        ImportError: it is not installed."""
        from bsa.views import comparison_bars  # pictures are needed only where they are shown

        return comparison_bars(self).plot(ax)

    def _repr_html_(self):
        from bsa.html import comparison_html

        return comparison_html(self)

    def __str__(self):
        return self.table()

    def __repr__(self):
        failures = sum(bool(row.error) for row in self.rows)
        failed = f", {failures} without a result" if failures else ""
        return f"<bsa.Comparison of {counted(len(self), 'row')}{failed}>"


# ---- The table ----


def _ratio(value):
    return "-" if math.isnan(value) else f"{value:.3f}"


# Heading, column and how to write it.
SHOWN = (
    ("heap", "size", format_size),
    ("times peak", "times_peak", _ratio),
    ("pages in use", "peak_allocated", format_size),
    ("size classes", "class_rounding", format_size),
    ("powers of two", "page_rounding", format_size),
    ("unused in slabs", "slab_slack", format_size),
    ("largest hole", "largest_free", format_size),
    ("mean footprint", "mean_footprint", _ratio),
    ("peak footprint", "peak_footprint", _ratio),
)


def name_of(row):
    """The name that tables and pictures show: whatever the configuration's key is, a short text."""
    return printable(str(row.name), 60)


def texts_of(row):
    """What a table shows of a row: its name and each of SHOWN, or its name and the error."""
    if row.error:
        return [name_of(row), printable(row.error, 400)]
    shown = ((row.metrics.get(name), text) for _, name, text in SHOWN)
    return [name_of(row), *("" if value is None else text(value) for value, text in shown)]


def _line(cells, widths):
    """The name at the left; of a failure the reason, else numbers at the right."""
    name = cells[0].ljust(widths[0])
    if len(cells) == 2:
        return f"{name}  {cells[1]}"
    return "  ".join([name, *map(str.rjust, cells[1:], widths[1:])]).rstrip()


# ---- Tasks ----


@dataclass(frozen=True)
class _Heap:
    """To run the trace in an Allocator with these options."""

    name: str
    options: dict
    samples: int

    def run(self, trace, progress):
        options = {"cpus": min(max(trace.threads, 1), MOST_SLOTS), **self.options}
        size = options.pop("size", None)
        if size is None:
            kind = {name: options[name] for name in ("page_size", "cpus") if name in options}
            size = smallest_heap(trace, progress=progress, **kind)
        with _core.Allocator(size, **options) as heap:
            timeline = replay(trace, heap, samples=self.samples, progress=progress)
        return Row(self.name, self.options, _metrics_of(timeline, size, trace.peak[1]), timeline)


def _metrics_of(timeline, size, peak):
    at = fullest(timeline)
    found = {
        "size": size,
        "times_peak": metrics.times_peak(size, peak),
        "peak_allocated": timeline.peak_allocated[-1],
        "mean_footprint": timeline.mean_footprint,
        "peak_footprint": timeline.peak_footprint,
    }
    at_tightest = {name: getattr(timeline, name)[at] for name in COLUMNS if name not in found}
    return {name: {**found, **at_tightest}[name] for name in COLUMNS}


@dataclass(frozen=True)
class _Reference:
    """To place the trace's blocks as another allocator would."""

    name: str
    options: dict

    def run(self, trace, progress):
        size = reference_extent(trace, self.name, progress=progress, **self.options)
        found = {"size": size, "times_peak": metrics.times_peak(size, trace.peak[1])}
        return Row(self.name, self.options, found)


def reference_extent(trace, policy, *, header=8, progress=None):
    """How far the heap of another allocator reaches at most when it places the trace's blocks: bytes
    from its first to beyond its last. A model in C, of places alone.

    `policy`: "first fit" (the lowest hole that is large enough), "best fit" (the smallest one), both
    merging at once what is freed, or "tlsf" (two-level segregated fit, with 32 lists to a doubling).
    `header`: bytes in front of each block, 0 to 32: 8 as in glibc, dlmalloc and most TLSFs, whose
    other fields lie in what is free; 16 for a header of two words. Blocks are multiples of 16 bytes,
    and at least 32. What lies behind the last block is used only where no hole will do.

    `progress(events_run)` is called every few milliseconds. O(log holes) an event, for TLSF O(1).
    """
    if not isinstance(trace, Trace):
        raise TypeError(f"reference_extent() needs a bsa.Trace, not {type(trace).__name__}")
    if policy not in REFERENCES:
        raise _core.InvalidParamError(f"policy must be one of {REFERENCES}, is {policy!r}")
    return _core._place(*columns(trace), REFERENCES.index(policy), header, progress)


def _failed(task, error):
    return Row(task.name, task.options, error=str(error) or type(error).__name__)


# ---- Where tasks run ----


class _Parcel:
    """A trace on its way to other processes: packed once, compressed, and only if it travels."""

    def __init__(self, trace):
        self.trace = trace

    @functools.cached_property
    def packed(self):
        return zlib.compress(pickle.dumps(self.trace, protocol=5), level=1)

    def __reduce__(self):
        return _unpacked, (self.packed,)


@functools.lru_cache(maxsize=1)  # several tasks may reach one process
def _unpacked(packed):
    return _Parcel(pickle.loads(zlib.decompress(packed)))


def _run(task, parcel, progress=None):
    try:
        return task.run(parcel.trace, progress)
    except Exception as error:
        return _failed(task, error)


_delivered = None  # the parcel that this process was forked with
_at_interrupt = None  # and how it dealt with Ctrl-C


def _deliver(parcel):
    """Ctrl-C ends a task. A process that waits for one, or sends a result, leaves it to the pool: it
    would print a traceback, or leave half a result for the rest of which the pool waits forever."""
    global _delivered, _at_interrupt
    _delivered = parcel
    _at_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN) or signal.SIG_DFL


def _run_delivered(task):
    try:
        signal.signal(signal.SIGINT, _at_interrupt)
        return _run(task, _delivered)
    except KeyboardInterrupt:
        os._exit(130)  # which breaks the pool: what it has queued would be run to its end
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _can_fork():
    """Whether a forked child is safe: a lock that another thread held would stay locked there. Threads
    that Python knows nothing of count, too; where they cannot be counted, there may be some."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


@contextmanager
def _submitting(trace, executor, tasks):
    """Gives a function that submits a task and returns its future."""
    parcel = _Parcel(trace)
    if executor is not None:
        yield lambda task: executor.submit(_run, task, parcel)
        return
    own_pool = _processes if _can_fork() else _threads
    with own_pool(max(min(tasks, os.cpu_count() or 1), 1), parcel) as submit:
        yield submit


@contextmanager
def _processes(workers, parcel):
    """Forked, so they have the trace already, and need no __main__ that can be imported."""
    # Here: at the top they would make `import bsa` take a third longer.
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, get_context("fork"), _deliver, (parcel,)) as pool:
        try:
            yield lambda task: pool.submit(_run_delivered, task)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _threads(workers, parcel):
    """The work is in C, without the GIL. An exception (Ctrl-C) ends it within milliseconds."""
    from concurrent.futures import CancelledError, ThreadPoolExecutor

    stopped = threading.Event()

    def go_on(*done):
        if stopped.is_set():
            raise CancelledError

    with ThreadPoolExecutor(workers) as pool:
        try:
            yield lambda task: pool.submit(_run, task, parcel, go_on)
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _rows_of(tasks, submit, progress):
    """By name, as they come in. What has not begun when an exception ends this (Ctrl-C) never will."""
    from concurrent.futures import as_completed

    rows, futures = {}, {}
    step = progress.step("compare", len(tasks)) or (lambda done: None)
    try:
        for task in tasks:
            try:
                futures[submit(task)] = task
            except Exception as error:  # the executor is broken, or shut down
                rows[task.name] = _failed(task, error)
        for future in as_completed(futures):
            rows[futures[future].name] = _result_of(future, futures[future])
            step(len(rows))
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    return rows


def _result_of(future, task):
    try:
        row = future.result()
    except Exception as error:  # it could not be sent, or its process died
        return _failed(task, error)
    if not isinstance(row, Row) or row.name != task.name:
        return _failed(task, TypeError("the executor returned the result of something else"))
    return row


def _advice(wrong, names):
    """What may have been meant by a name that is none of these."""
    close = difflib.get_close_matches(str(wrong), names, 1, 0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"


def _heap(name, options, samples):
    """The task of one configuration."""
    if not isinstance(options, Mapping):
        raise TypeError(
            f"configuration {name!r} is a {type(options).__name__}, not a dict of options"
        )
    for option in options:
        if option not in OPTIONS:
            raise TypeError(
                f"configuration {name!r} has no option {option!r}: {_advice(option, OPTIONS)}"
            )
    return _Heap(name, dict(options), samples)


def _reference(name, header):
    """The task of one reference."""
    if name not in REFERENCES:
        raise _core.InvalidParamError(f"no reference is {name!r}: {_advice(name, REFERENCES)}")
    reference_extent(Trace.from_events([]), name, header=header)  # refuses what is no header
    return _Reference(name, {"header": header})


def _tasks(configurations, samples, references, header):
    """All there is to do, in the order of the rows. Raises for what can be no row."""
    if not isinstance(configurations, Mapping):
        raise TypeError(f"configurations is a dict, not {type(configurations).__name__}")
    if not configurations:
        raise _core.InvalidParamError("there is no configuration to compare, as {'4k': {}} is one")
    tasks = [_heap(name, options, samples) for name, options in configurations.items()]
    references = [_reference(name, header) for name in references]
    if len({task.name for task in references}) < len(references):
        raise _core.InvalidParamError("a reference is named twice")
    tasks += references
    if len({task.name for task in tasks}) < len(tasks):
        raise _core.InvalidParamError("a configuration has the name of a reference")
    return tasks


def compare(trace, configurations, *, samples=1000, references=REFERENCES, header=8, executor=None):
    """Run a trace in many heaps, side by side, and return a Comparison.

    `configurations` maps names to dicts of the Allocator's keyword arguments, and `size`, the bytes
    of the heap, metadata included; without it, the smallest heap is found and used. `cpus` is by
    default one a thread of the trace, at most 64. `samples`: looks at each heap, from which come its
    timeline and the moment that most columns tell of.

    `references` are what to compare with: names of policies in reference_extent, which also explains
    `header`.

    What does not fit, or has an impossible value, becomes a row that says why. TypeError, before
    anything is run: an option that no configuration has, or what is no dict. InvalidParamError:
    there is no configuration, or no such reference, or the one is named like the other.

    `executor` is any concurrent.futures.Executor, which stays open; None: a pool of forked processes
    or, where forking is not safe (this process has several threads, as a notebook's kernel has), of
    threads, which are as fast. So no script needs `if __name__ == "__main__":` for it. On a terminal
    and in Jupyter, progress is shown.
    """
    # Here: at the top it would make `import bsa` take longer.
    from concurrent.futures import Executor

    if not isinstance(trace, Trace):
        raise TypeError(f"compare() needs a bsa.Trace, not {type(trace).__name__}")
    tasks = _tasks(configurations, samples, references, header)
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(
            f"executor is a concurrent.futures.Executor, not {type(executor).__name__} (of a Dask "
            "client: client.get_executor())"
        )
    with Progress() as progress, _submitting(trace, executor, len(tasks)) as submit:
        rows = _rows_of(tasks, submit, progress)
    return Comparison([rows[task.name] for task in tasks], len(trace), trace.peak[1])
