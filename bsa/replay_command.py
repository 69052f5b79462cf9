"""`python -m bsa replay FILE`: a study of a trace, as a table and as a picture."""

from bsa import options, output_file, plot
from bsa.importers.history import odd_counts
from bsa.progress import Progress
from bsa.study import study
from bsa.trace import Trace
from bsa.units import counted, format_size, percent
from bsa.views.tightest import shortened, tightest

_LOSSES_SHOWN = 3


def report(trace, name, picture_file=None, **heap):
    """Study the trace, print the table and write the picture. `heap`: as for study()."""
    with Progress() as progress:
        result = study(trace, name, progress, **heap)
    print(table(result))
    if picture_file is not None:
        output_file.write(picture_file, picture(result).encode("utf-8"))
        print(f"\nThe picture: {picture_file} (any browser shows it)")


# ---- The table ----


def table(study):
    """Lines of text: a name, and what there is to say."""
    rows = list(_trace_rows(study))
    if study.peak.requested:
        rows += [*_peak_rows(study), *_loss_rows(study), _smallest_row(study)]
    else:
        rows.append(("peak live", "0 bytes throughout: there is no loss to measure"))
    return "\n".join(f"{name:<16} {text}" for name, text in rows)


def _trace_rows(study):
    trace, timeline = study.trace, study.end.timeline
    yield "trace", study.name
    yield "events", f"{len(trace):,}; {counted(timeline.survivors, 'allocation')} never freed"
    if odd := _odd(trace.meta):
        yield "  odd", odd
    yield "threads", f"{trace.threads:,}, replayed on {counted(study.cpus, 'slot')}"
    yield "heap", (
        f"{format_size(study.size)}: {counted(study.pages, 'page')} of "
        f"{format_size(timeline.page_size)}, {format_size(study.size - timeline.managed)} metadata"
    )


def _odd(meta):
    """In what the trace is not the history of a whole program; nothing if it seems to be."""
    odd = [odd_counts(meta)]
    if meta.get("lost"):
        odd.append(f"{meta['lost']} events lost by the source")
    if meta.get("cut"):
        odd.append("the recording was cut short")
    if meta.get("status"):
        odd.append(f"the program failed with status {meta['status']}")
    return ", ".join(filter(None, odd))


def _peak_rows(study):
    peak = study.peak
    pages = peak.held // peak.timeline.page_size
    yield "peak live", f"{_bytes(peak.requested)}, at event {study.trace.peak[0]:,}"
    yield "  granted", f"{_bytes(peak.granted)}"
    yield "  pages held", f"{_bytes(peak.held)}, {counted(pages, 'page')}"


def _loss_rows(study):
    peak = study.peak
    rounding, slack = peak.granted - peak.requested, peak.held - peak.granted
    yield "internal loss", (
        f"{study.internal_loss} of the pages held: {percent(rounding, peak.held)} by "
        f"rounding, {percent(slack, peak.held)} unused in slabs"
    )
    yield from _lost_most(peak.timeline)
    yield "external loss", (
        f"{study.external_loss} of the free memory: of {format_size(peak.free)} the largest block "
        f"has {format_size(peak.largest_free)}"
    )
    indices = [
        f"{peak.timeline.unusable_index(order)[-1]:.3f} for {format_size(size)}"
        for order, size in plot.telling_blocks(peak.timeline)
    ]
    yield "  unusable index", ", ".join(indices)


def _lost_most(timeline):
    """At its end, the largest first, and what the others sum up to; nothing if there is no room for
    another such heap."""
    moment = tightest(timeline)
    losses = moment.losses if moment is not None else ()
    name = "  lost most"
    for loss in shortened(losses, _LOSSES_SHOWN):
        how_many = f" ({loss.how_many})" if loss.how_many else ""
        yield name, f"{format_size(loss.size)}: {loss.what}{how_many}"
        name = ""


def _smallest_row(study):
    return "smallest heap", f"{_bytes(study.smallest)}, {study.times_peak} times the peak live"


# ---- The picture ----


def picture(study):
    """The SVG."""
    return plot.picture(
        title=study.name,
        subtitle=(
            f"{len(study.trace):,} events of {counted(study.trace.threads, 'thread')}, "
            f"replayed on {counted(study.cpus, 'slot')}"
        ),
        facts=facts_of(study),
        maps=_maps(study),
        timeline=study.end.timeline,
        peak=study.trace.peak if study.peak.requested else None,
    )


def _maps(study):
    maps = [plot.HeapMap("At the end", study.end.states)]
    if study.peak.requested:
        caption = f"At the peak, event {study.trace.peak[0]:,}"
        maps.insert(0, plot.HeapMap(caption, study.peak.states))
    return maps


def facts_of(study):
    """The headline figures of a study: (label, figure, note) each."""
    peak, page_size = study.peak, study.end.timeline.page_size
    metadata = study.size - study.end.timeline.managed
    times_peak = f"{study.times_peak} × peak live" if peak.requested else ""
    return [
        ("peak live", format_size(peak.requested), f"{peak.requested:,} bytes"),
        ("pages held at peak", format_size(peak.held), counted(peak.held // page_size, "page")),
        ("internal loss", study.internal_loss, "of the pages held"),
        ("external loss", study.external_loss, "of the free memory"),
        ("heap", format_size(study.size), f"{format_size(metadata)} metadata"),
        ("smallest heap", format_size(study.smallest), times_peak),
    ]


def _bytes(size):
    return f"{size:,} bytes ({format_size(size)})"


# ---- The command line ----


def add_parser(subparsers):
    """Add `replay` to the commands of `python -m bsa`."""
    parser = subparsers.add_parser(
        "replay",
        help="replay a trace and tell where the memory goes",
        description="Run a trace again on a heap of bsa's, print what it needs and loses, and draw "
        "the picture. Sizes may have a binary unit: 4096, 64K, 1.5M, 2GiB.",
        epilog="Example: python3 -m bsa replay work.bsa -o work.svg",
    )
    options.add_trace(parser)
    options.add_heap(parser)
    parser.add_argument(
        "--samples",
        type=options.not_negative,
        default=1000,
        metavar="N",
        help="number of looks at the heap, spread over the trace, of which the picture's lines are "
        "made; with 0 there is one, at the end (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=options.output("picture", ".svg"),
        metavar="PICTURE",
        help="write the picture into this file, whose name ends in .svg (default: none)",
    )
    parser.set_defaults(run=run)


def run(args):
    """The command `replay`."""
    if args.output is not None:
        output_file.check(args.output, args.file)
    report(
        Trace.load(args.file, bad=args.bad),
        args.file.name,
        args.output,
        samples=args.samples,
        **options.heap_of(args),
    )
    return 0
