"""`python -m bsa report FILE -o report.html`: all that can be seen of a trace, on one page.

The trace is replayed several times: for the study and its timeline; with looks at the pages, for
the scrubber; to the peak, for the pictures of the heap as it is there; and in other heaps, to
compare.
"""

import pathlib
from html import escape

from bsa import output_file, views
from bsa._core import Allocator, InvalidParamError
from bsa.births import replay_births
from bsa.compare import compare
from bsa.progress import Progress
from bsa.replay_command import facts_of, table
from bsa.report.frames import film, peak_moment
from bsa.report.page import Section, page
from bsa.report.scrubber import scrubber
from bsa.study import study
from bsa.trace import Trace
from bsa.units import counted, format_size

_PAGE_SIZES = (1024, 4096, 16384)
_VIEWS_OF_HEAP = 6


def report(trace, name):
    """The page as HTML. Errors are those of study()."""
    with Progress() as progress:
        result = study(trace, name, progress)
        sections = [
            _through_time(result, progress),
            _at_the_peak(result, progress),
            _over_time(result),
            _of_the_trace(result),
        ]
    sections.append(_other_heaps(trace))
    subtitle = (
        f"{counted(len(trace), 'event')} of {counted(trace.threads, 'thread')}, "
        f"replayed on {counted(result.cpus, 'slot')}"
    )
    return page(name, subtitle, facts_of(result), sections)


# ---- The parts of the page ----


def _through_time(study, progress):
    pages = film(study, _step(progress, "look at the heap", len(study.trace)))
    note = (
        f"Lowest address first; {_cell(pages.pages_per_cell, study.end.timeline.page_size)}. A "
        "slab that is being filled is no empty one, even while it has no objects. Move the slider, "
        "or press the left and right arrow keys."
    )
    body = scrubber(pages, peak_moment(study.trace))
    return Section("through-time", "The heap through time", note, body)


def _step(progress, label, total):
    """Tells of progress, where somebody watches."""
    return progress.step(label, total) or (lambda done: None)


def _cell(pages, page_size):
    if pages == 1:
        return f"a cell is a page of {format_size(page_size)}"
    return (
        f"a cell is {pages:,} pages of {format_size(page_size)}, the paler the more of it is free"
    )


def _at_the_peak(study, progress):
    trace, page_size = study.trace, study.end.timeline.page_size
    event, size = trace.peak
    step = _step(progress, "draw the heap", _VIEWS_OF_HEAP)
    with Allocator(study.size, page_size=page_size, cpus=study.cpus) as heap:
        births = replay_births(trace[: event + 1], heap)
        pictures = []
        for view in _views_of(heap, births):
            pictures.append(view._repr_html_())
            step(len(pictures))
    note = (
        f"After event {event:,}, when {format_size(size)} were live: the most there ever were. The "
        "first map shows pages, the second one objects, and what is lost by rounding up."
    )
    return Section("peak", "The heap at the peak", note, "".join(pictures))


def _views_of(heap, births):
    yield views.heap_map(heap)
    yield views.heap_map(heap, objects=True, births=births)
    yield views.buddy_tree(heap)
    yield views.slab_strips(heap)
    yield views.request_curve(heap)
    try:
        yield views.pins_map(heap, _next_order(heap), births=births)
    except InvalidParamError:
        pass  # the largest blocks there could be are free


def _next_order(heap):
    """The least order of which no block is free."""
    return (heap.largest_free // heap.page_size).bit_length()


def _over_time(study):
    timeline = study.end.timeline
    pictures = [view(timeline)._repr_html_() for view in (views.memory_timeline, views.order_map)]
    note = f"{counted(len(timeline), 'look')} at the heap, spread evenly over the events."
    return Section("over-time", "Over time", note, "".join(pictures))


def _of_the_trace(study):
    body = f"<pre>{escape(table(study))}</pre>"
    if study.peak.requested:
        body += views.histograms(study.trace)._repr_html_()
    return Section("trace", "The trace in figures", "What was asked for, and its cost.", body)


def _other_heaps(trace):
    heaps = {f"pages of {format_size(size)}": {"page_size": size} for size in _PAGE_SIZES}
    comparison = compare(trace, heaps)
    body = f'<div class="wide">{comparison._repr_html_()}</div>'
    note = (
        "The same trace in the smallest heap that is enough, for some page sizes; and how far "
        "other allocators would reach (models of where they place blocks)."
    )
    return Section("other-heaps", "Other heaps", note, body)


# ---- The command line ----


def add_parser(subparsers):
    """Add `report` to the commands of `python -m bsa`."""
    parser = subparsers.add_parser(
        "report",
        help="show all that can be seen of a trace on one HTML page",
        description="Replay a trace and write one HTML page with every picture there is: the heap "
        "through time and at its peak, its losses, the trace's sizes and lifetimes, other heaps.",
        epilog="Example: python3 -m bsa report work.bsa -o work.html",
    )
    parser.add_argument(
        "file", metavar="FILE", type=pathlib.Path, help="a trace file, as record saves it"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PAGE",
        type=pathlib.Path,
        required=True,
        help="the HTML file to write",
    )
    parser.set_defaults(run=run)


def run(args):
    """The command `report`."""
    output_file.check(args.output)
    html = report(Trace.load(args.file), args.file.name)
    output_file.write(args.output, html.encode("utf-8", "replace"))
    print(f"The report: {args.output} (any browser shows it)")
    return 0
