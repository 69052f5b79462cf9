"""`python -m bsa info FILE...`: what is in a trace, without replaying it."""

import os
import shlex
import sys
from collections import Counter

from bsa import options
from bsa.trace import Trace, TraceError, TraceOp
from bsa.trace_tools import size_histogram
from bsa.units import format_size, percent, printable

_BAR = 40  # characters
_NAME, _VALUE = 40, 1000  # shown at most of what a file says of itself


def add_parser(subparsers):
    """Add `info` to the commands of `python -m bsa`."""
    parser = subparsers.add_parser(
        "info",
        help="tell what is in a trace file",
        description="Tell what is in trace files: events, threads, live bytes, sizes, origin.",
        epilog="Example: python3 -m bsa info work.bsa",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help=options.TRACE)
    options.add_bad(parser)
    parser.set_defaults(run=run)


def run(args):
    """The command `info`: 1 if a file could not be read."""
    status = 0
    for number, path in enumerate(args.files):
        try:
            text = describe(path, args.bad)
        except (OSError, TraceError) as error:
            print(f"python -m bsa info: {error}", file=sys.stderr)
            status = 1
        else:
            print("\n" * (number > 0) + text)
    return status


def describe(path, bad=None):
    """Everything about the trace in a file, as lines of text. `bad`: as for Trace.load()."""
    trace = Trace.load(path, bad=bad)
    rows = [
        ("events", f"{len(trace):,} in {format_size(os.path.getsize(path))}"),
        *_operations(trace),
        ("threads", f"{trace.threads:,}"),
        ("ids", f"{trace.ids:,} (blocks alive at once)"),
        ("peak", _peak(trace)),
        *_origin(trace.meta),
    ]
    lines = [f"  {name:<17} {value}" for name, value in rows]
    return "\n".join([str(path), *lines, *_size_lines(trace)])


def _operations(trace):
    counts = Counter(trace.op)
    return [(op.name.lower(), f"{counts[op]:,}") for op in TraceOp]


def _peak(trace):
    event, size = trace.peak
    if size == 0:
        return "0 B: nothing was alive at any time"
    return f"{format_size(size)} ({size:,} bytes) alive after event {event:,}"


def _origin(meta):
    """How the trace came about: the command first, then counts of what was odd."""
    rows = []
    if "command" in meta:
        words = meta["command"]
        rows.append(("command", shlex.join(map(str, words)) if _is_list(words) else words))
    for name, value in meta.items():
        if name != "command" and value is not False and (value != 0 or name == "status"):
            rows.append((name.replace("_", " "), value))
    return [(printable(str(name), _NAME), printable(str(value), _VALUE)) for name, value in rows]


def _is_list(words):
    return isinstance(words, (list, tuple))


def _size_lines(trace):
    histogram = size_histogram(trace)
    requests, most = sum(histogram.values()), max(histogram.values(), default=0)
    lines = ["  requests of up to"] if histogram else []
    for power, count in histogram.items():
        bar = "#" * -(-_BAR * count // most)
        lines.append(f"  {format_size(power):>10} {count:>11,} {percent(count, requests):>8} {bar}")
    return lines
