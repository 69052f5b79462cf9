"""`python -m bsa replay FILE`: a study of a trace, as a table and as a picture."""

import argparse
import pathlib

from bsa import plot
from bsa.progress import Progress
from bsa.study import MOST_SLOTS, study
from bsa.trace import Trace
from bsa.units import format_size, parse_size, percent


def report(trace, name, picture_file=None, **options):
    """Study the trace, print the table and write the picture. `options`: as for study()."""
    with Progress() as progress:
        result = study(trace, name, progress, **options)
    print(table(result))
    if picture_file is not None:
        picture_file.write_text(picture(result), encoding="utf-8")


# ---- The table ----


def table(study):
    """Lines of text: a name, and what there is to say."""
    rows = [*_trace_rows(study), *_peak_rows(study), *_loss_rows(study), _smallest_row(study)]
    return "\n".join(f"{name:<16} {text}" for name, text in rows)


def _trace_rows(study):
    trace, timeline = study.trace, study.end.timeline
    yield "trace", study.name
    yield "events", f"{len(trace):,}; {_counted(timeline.survivors, 'allocation')} never freed"
    yield "threads", f"{trace.threads:,}, replayed on {_counted(study.cpus, 'slot')}"
    yield "heap", (
        f"{format_size(study.size)}: {_counted(study.pages, 'page')} of "
        f"{format_size(timeline.page_size)}, {format_size(study.size - timeline.managed)} metadata"
    )


def _peak_rows(study):
    peak = study.peak
    pages = peak.held // peak.timeline.page_size
    yield "peak live", f"{_bytes(peak.requested)}, at event {study.trace.peak[0]:,}"
    yield "  granted", f"{_bytes(peak.granted)}"
    yield "  pages held", f"{_bytes(peak.held)}, {_counted(pages, 'page')}"


def _loss_rows(study):
    peak = study.peak
    rounding, slack = peak.granted - peak.requested, peak.held - peak.granted
    yield "internal loss", (
        f"{study.internal_loss} of the pages held: {percent(rounding, peak.held)} by rounding "
        f"sizes up, {percent(slack, peak.held)} free in slabs"
    )
    yield "external loss", (
        f"{study.external_loss} of the free memory: of {format_size(peak.free)} the largest block "
        f"has {format_size(peak.largest_free)}"
    )
    indices = [
        f"{peak.timeline.unusable_index(order)[-1]:.3f} for {format_size(size)}"
        for order, size in plot.telling_blocks(peak.timeline)
    ]
    yield "  unusable index", ", ".join(indices)


def _smallest_row(study):
    return "smallest heap", f"{_bytes(study.smallest)}, {study.times_peak:.3g} times the peak live"


# ---- The picture ----


def picture(study):
    """The SVG."""
    return plot.picture(
        title=study.name,
        subtitle=(
            f"{len(study.trace):,} events of {_counted(study.trace.threads, 'thread')}, "
            f"replayed on {_counted(study.cpus, 'slot')}"
        ),
        facts=_facts(study),
        maps=[
            plot.HeapMap(f"At the peak, event {study.trace.peak[0]:,}", study.peak.states),
            plot.HeapMap("At the end", study.end.states),
        ],
        timeline=study.end.timeline,
        peak=study.trace.peak,
    )


def _facts(study):
    peak, page_size = study.peak, study.end.timeline.page_size
    return [
        ("peak live", format_size(peak.requested), f"{peak.requested:,} bytes"),
        ("pages held at peak", format_size(peak.held), f"{peak.held // page_size:,} pages"),
        ("internal loss", study.internal_loss, "of the pages held"),
        ("external loss", study.external_loss, "of the free memory"),
        ("heap", format_size(study.size), f"{study.pages:,} pages of {format_size(page_size)}"),
        ("smallest heap", format_size(study.smallest), f"{study.times_peak:.3g} × peak live"),
    ]


def _bytes(size):
    return f"{size:,} bytes ({format_size(size)})"


def _counted(number, noun):
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# ---- The command line ----


def add_parser(subparsers):
    """Add `replay` to the commands of `python -m bsa`."""
    parser = subparsers.add_parser(
        "replay",
        help="replay a trace and tell where the memory goes",
        description="Replay a trace, print what it needs and loses, and draw the picture.",
    )
    parser.add_argument("file", metavar="FILE", type=pathlib.Path, help="a trace file")
    parser.add_argument(
        "--size",
        type=_size,
        help="memory for the heap, as 64M (default: a little over the smallest)",
    )
    parser.add_argument(
        "--page-size", type=_size, default=4096, metavar="N", help="bytes (default: %(default)s)"
    )
    parser.add_argument(
        "--cpus",
        type=_positive,
        metavar="N",
        help=f"slots (default: one a thread, up to {MOST_SLOTS})",
    )
    parser.add_argument(
        "--samples",
        type=_positive,
        default=1000,
        metavar="N",
        help="of the timeline (default: 1000)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=pathlib.Path,
        metavar="PICTURE",
        help="write the picture, an SVG file",
    )
    parser.set_defaults(run=run)


def run(args):
    """The command `replay`."""
    report(
        Trace.load(args.file),
        args.file.name,
        args.output,
        size=args.size,
        page_size=args.page_size,
        cpus=args.cpus,
        samples=args.samples,
    )
    return 0


def _size(text):
    """parse_size, as argparse wants to hear of errors."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)
