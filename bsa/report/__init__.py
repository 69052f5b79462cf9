"""`python -m bsa report FILE -o report.html`: all that can be seen of a trace, on one page.

The trace is replayed several times: for the study and its timeline; step by step, for the frames of
the scrubber and for pictures of the heap at its peak; and in other heaps, to compare.
"""

from html import escape

from bsa import options, output_file, views
from bsa.compare import compare
from bsa.html import comparison_table, fragment
from bsa.progress import Progress
from bsa.replay_command import facts_of, table
from bsa.report.frames import film, peak_moment
from bsa.report.page import Section, page
from bsa.report.pins import pins_html
from bsa.report.scrubber import scrubber
from bsa.study import study
from bsa.trace import Trace
from bsa.units import counted, format_size

_PAGE_SIZES = (1024, 4096, 16384)


def report(trace, name, **heap):
    """The page as HTML. `heap`: size, page_size and cpus, as for study(), whose errors it has."""
    with Progress() as progress:
        result = study(trace, name, progress, **heap)
        sections = list(_sections(result, progress))
    subtitle = (
        f"{counted(len(trace), 'event')} of {counted(trace.threads, 'thread')}, "
        f"replayed on {counted(result.cpus, 'slot')}"
    )
    return page(name, subtitle, facts_of(result), sections)


# ---- The parts of the page ----


def _sections(study, progress):
    if not study.trace:
        yield Section("trace", "The trace", "It has no events: nothing was asked for.", "")
        return
    yield from _filmed(study, progress)
    yield _over_time(study)
    yield _of_the_trace(study)
    yield _other_heaps(study)


def _filmed(study, progress):
    """The heap through time, and at its peak: what one replay shows."""
    trace, pictures = study.trace, []
    peak = peak_moment(trace)
    step = progress.step("look at the heap", len(trace)) or (lambda done: None)

    def at_frame(heap, steps):
        step(steps.done)
        if steps.done == peak:
            pictures.extend(_pictures_of(heap, steps.births()))

    pages = film(study, at_frame)
    return _through_time(study, pages, peak), _at_the_peak(trace, pictures)


def _through_time(study, pages, peak):
    note = (
        f"Lowest address first; {_cell(pages.pages_per_cell, study.end.timeline.page_size)}. A "
        "slab that is being filled is no empty one, even while it has no objects. Move the slider, "
        "or press the left and right arrow keys."
    )
    return Section("through-time", "The heap through time", note, scrubber(pages, peak))


def _cell(pages, page_size):
    if pages == 1:
        return f"a cell is a page of {format_size(page_size)}"
    return (
        f"a cell is {pages:,} pages of {format_size(page_size)}, the paler the more of it is free"
    )


def _at_the_peak(trace, pictures):
    event, size = trace.peak
    note = (
        f"After event {event:,}, when {format_size(size)} were live: the most there ever were. The "
        "first map shows pages, the second one objects, and what is lost by rounding."
    )
    return Section("peak", "The heap at the peak", note, "".join(pictures))


def _pictures_of(heap, births):
    yield views.heap_map(heap)._repr_html_()
    yield views.heap_map(heap, objects=True, births=births)._repr_html_()
    yield views.buddy_tree(heap)._repr_html_()
    yield views.slab_strips(heap)._repr_html_()
    yield views.request_curve(heap)._repr_html_()
    yield pins_html(heap, births)


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


def _other_heaps(study):
    mine = study.end.timeline.page_size
    heaps = {
        f"pages of {format_size(size)}": {"page_size": size, "cpus": study.cpus}
        for size in sorted({*_PAGE_SIZES, mine})
    }
    heaps[f"pages of {format_size(mine)}"]["size"] = study.smallest  # found already
    comparison = compare(study.trace, heaps)
    table = fragment("Needs and losses, when most pages are in use", comparison_table(comparison))
    body = f'<div class="wide">{table}</div>{views.comparison_bars(comparison)._repr_html_()}'
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
        epilog="Example: python3 -m bsa report work.bsa -o report.html",
    )
    options.add_trace(parser)
    options.add_heap(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="PAGE",
        type=options.output("page", ".html", ".htm", ""),
        help="the HTML file to write (default: FILE, with .html for its ending)",
    )
    parser.set_defaults(run=run)


def run(args):
    """The command `report`."""
    output = args.output or args.file.with_suffix(".html")
    output_file.check(output, args.file)
    html = report(Trace.load(args.file, bad=args.bad), args.file.name, **options.heap_of(args))
    output_file.write(output, html.encode("utf-8", "replace"))
    print(f"The report: {output} (any browser shows it)")
    return 0
