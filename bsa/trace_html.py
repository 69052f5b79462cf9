"""What Jupyter shows of a Trace: its main figures, and its histograms of sizes and lifetimes.

One fragment, as those of html.py: no script, no style sheet, no identifiers, the colours of its
surroundings for text. It takes about as long as statistics(), and a few kilobytes whatever the
trace.
"""

from bsa.html import fragment, numbers_table
from bsa.units import counted, format_size, percent
from bsa.views.histograms import Histograms

_THREADS = 8  # at most are listed
_WORDS = 200  # characters of a command are shown

# What `meta` may count, in the order in which it is told.
_ODDITIES = (
    "skipped",
    "unknown_frees",
    "double_frees",
    "unknown_reallocs",
    "missed_frees",
    "pieces",
    "lost",
    "torn",
)


def trace_html(trace):
    """An HTML fragment for the trace."""
    statistics = trace.statistics()
    rows = [*_totals(statistics), *_threads(statistics), *_origin(trace.meta)]
    picture = Histograms(statistics)._repr_html_() if statistics.sizes.count else ""
    return fragment("bsa.Trace", numbers_table(rows) + picture)


def _totals(s):
    yield "events", (
        f"{s.events:,}: {counted(s.allocations, 'allocation')}, "
        f"{counted(s.reallocations, 'reallocation')}, {counted(s.frees, 'free')}"
    )
    yield "requested", f"{format_size(s.sizes.total)} in all"
    event, size = s.peak
    yield "peak live", f"{format_size(size)}, after event {event:,}" if size else "0 B"
    yield "blocks", f"at most {s.peak_blocks:,} live; {s.survivors:,} never freed"


def _threads(s):
    if len(s.threads) > 1:
        busiest = sorted(s.threads, key=lambda thread: (-thread.events, thread.thread))[:_THREADS]
        shares = [
            f"thread {thread.thread} {percent(thread.events, s.events)}" for thread in busiest
        ]
        others = len(s.threads) - len(busiest)
        more = [f"{others:,} more"] if others else []
        yield "threads", f"{len(s.threads):,}: " + ", ".join(shares + more)
        yield "remote frees", f"{sum(thread.remote_frees for thread in s.threads):,}"


def _origin(meta):
    """What it is told to be of, and what was odd in it. `meta` may hold anything."""
    if "command" in meta:
        words = meta["command"]
        text = " ".join(map(str, words)) if isinstance(words, list) else str(words)
        yield "command", text if len(text) <= _WORDS else f"{text[:_WORDS]}…"
    for name in ("source", "workload"):
        if name in meta:
            yield name, str(meta[name])[:_WORDS]
    if meta.get("status"):
        yield "status", f"{str(meta['status'])[:_WORDS]}: the program failed"
    if meta.get("cut"):
        yield "recording", "cut short"
    odd = [
        f"{name.replace('_', ' ')}: {meta[name]:,}"
        for name in _ODDITIES
        if isinstance(meta.get(name), int) and meta[name]
    ]
    if odd:
        yield "odd", ", ".join(odd)
