"""What several commands are told on the command line: which trace, and which heap to replay it in."""

import argparse
import pathlib

from bsa.importers.history import BAD
from bsa.study import MOST_SLOTS
from bsa.units import parse_size

TRACE = (
    "a trace: as record saves it, or of heaptrack, memory_replay, perf script, the malloc lab "
    "(.rep) or CSV; gzip, xz and zip are undone"
)


def add_trace(parser):
    """Add the FILE of a trace, and what may be wrong in it."""
    parser.add_argument("file", metavar="FILE", type=pathlib.Path, help=TRACE)
    add_bad(parser)


def add_bad(parser):
    """Add --bad, as Trace.load() has it."""
    parser.add_argument(
        "--bad",
        choices=BAD,
        help="refuse a trace with events that do not fit together (a free of nothing, say), or skip "
        "and count them (default: raise for .rep and CSV, skip for what saw only a part)",
    )


def add_heap(parser):
    """Add what the heap of a replay can be told; heap_of() returns it."""
    parser.add_argument(
        "--size",
        type=_size,
        metavar="BYTES",
        help="memory for the heap and its metadata (default: the smallest that is enough, and a "
        "little more)",
    )
    parser.add_argument(
        "--page-size",
        type=_size,
        default=4096,
        metavar="BYTES",
        help="size of the heap's pages, a power of two from 256 to 2M (default: %(default)s)",
    )
    parser.add_argument(
        "--cpus",
        type=positive,
        metavar="N",
        help="number of slots, each with slabs of its own; the trace's threads share them in turn "
        f"(default: one a thread, at most {MOST_SLOTS})",
    )


def heap_of(args):
    """What add_heap() asked for, as keyword arguments of study()."""
    return {"size": args.size, "page_size": args.page_size, "cpus": args.cpus}


def _size(text):
    """parse_size, as argparse wants to hear of errors."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text):
    """A number of 1 or more, for argparse."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def not_negative(text):
    """A number of 0 or more, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def output(what, *endings):
    """For argparse, what makes a path of the name of a file to write. `what` it shows, as a noun;
    `endings`: those that its name may have, in lower case."""

    def path_of(text):
        path = pathlib.Path(text)
        if path.suffix.lower() not in endings:
            wanted = " or ".join(filter(None, endings))
            raise argparse.ArgumentTypeError(f"{text!r}: the name of a {what} ends in {wanted}")
        return path

    return path_of
