"""The pictures of docs/fragmentation.md: every metric on real traces, and how to make such pictures.

    python3 examples/fragmentation.py [FOLDER]

writes them into the folder (default: fragmentation-pictures, made if need be).
"""

import pathlib
import sys
from concurrent.futures import ThreadPoolExecutor

import bsa
from bsa import metrics, views
from bsa.svg import FAINT_INK, Drawing
from bsa.views import colours, frame, strips
from bsa.views.comparing import Bar, ComparisonBars
from bsa.views.strips import Span

TRACES = pathlib.Path(__file__).resolve().parent.parent / "tests" / "traces"
PAGE = 4096


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "fragmentation-pictures")
    folder.mkdir(parents=True, exist_ok=True)
    trace = bsa.Trace.load(TRACES / "gcc.bsa")
    for name, view in {**of_a_heap(trace), **of_a_replay(trace)}.items():
        view.save(folder / f"fragmentation-{name}.svg")
        print(f"{name}: {view.picture().description[:100]}")
    (folder / "fragmentation-arrangements.svg").write_text(str(arrangements()), encoding="utf-8")


# ---- One moment of a compiler's run ----


def of_a_heap(trace):
    """Views of the heap after nineteen twentieths of the trace."""
    trace = trace[: len(trace) * 19 // 20]
    with bsa.Allocator(bsa.smallest_heap(trace, cpus=1), cpus=1) as heap:
        births = bsa.replay_births(trace, heap)
        return {
            "map": views.heap_map(heap, births=births),
            "tree": views.buddy_tree(heap),
            "slabs": views.slab_strips(heap),
            "asking": views.request_curve(heap),
            "pins": views.pins_map(heap, 6, births=births),
        }


# ---- All of it ----


def of_a_replay(trace):
    smallest = bsa.smallest_heap(trace, cpus=1)
    with bsa.Allocator(smallest, cpus=1) as heap:
        timeline = bsa.replay(trace, heap, samples=1000)
    return {
        "memory": views.memory_timeline(timeline),
        "orders": views.order_map(timeline),
        "histograms": views.histograms(trace),
        "comparison": views.comparison_bars(compared(trace)),
        "bound": bound(trace, timeline, smallest),
    }


def compared(trace):
    pages = {f"{size >> 10} KiB pages": {"page_size": size} for size in (1024, 4096, 16384)}
    with ThreadPoolExecutor(1) as executor:
        return bsa.compare(trace, pages, executor=executor)


def bound(trace, timeline, smallest):
    """What the trace needed, beside what Knuth's bound says would always be enough."""
    pages = max(timeline.allocated) // PAGE
    order = (max(trace.size) - 1).bit_length() - PAGE.bit_length() + 1
    always = metrics.knuth_bound(pages, order) * PAGE
    bars = [("peak live", trace.peak[1]), ("smallest heap", smallest), ("Knuth's bound", always)]
    return ComparisonBars(
        tuple(Bar(name, ((name, size, colours.PAGES),), f"{size:,} bytes") for name, size in bars),
        trace.peak[1],
        f"Bytes. The most pages in use were {pages:,}, in blocks up to order {order}.",
    )


# ---- The same free memory, arranged in different ways ----

ARRANGEMENTS = {
    "one block": range(0, 16),
    "two blocks": [*range(0, 8), *range(16, 24)],
    "two blocks, one run": range(8, 24),
    "four blocks": [page for page in range(32) if page // 4 % 2 == 0],
    "a large one, small ones": [*range(0, 8), *range(16, 32, 2)],
    "single pages": range(0, 32, 2),
}
COLUMNS = ("largest hole", "unusable, 8", "fragmentation, 16", "sum of squares")
PLACES = (620, 722, 824, 960)
ROW = 26


def arrangements():
    """32 pages of which 16 are free: the arrangement, and what the metrics say of it."""
    drawing = Drawing()
    title = "The same free memory, arranged in different ways"
    note = (
        "16 of 32 pages are free (grey). Unusable free space index for blocks of 8 pages, "
        "fragmentation index for blocks of 16."
    )
    y = frame.draw_heading(drawing, frame.TOP, title, note) + 18
    for name, x in zip(COLUMNS, PLACES):
        drawing.text(x, y - 8, name, size=12, fill=FAINT_INK)
    said = []
    for name, free in ARRANGEMENTS.items():
        figures = measured(free)
        drawing.text(frame.MARGIN, y + 14, name)
        place = strips.Rows(200, y, 384, 20, 32)
        strips.draw_rows(drawing, place, [spans(set(free))])
        for text, x in zip(figures, PLACES):
            drawing.text(x, y + 14, text)
        said.append(f"{name}: " + ", ".join(map(" ".join, zip(COLUMNS, figures))))
        y += ROW
    return drawing.finished(frame.WIDTH, y + 4, title, "; ".join(said))


def spans(free):
    paints = {True: colours.FREE, False: colours.PAGES}
    return [Span(page, page + 1, paints[page in free], f"page {page}") for page in range(32)]


def measured(free):
    """The metrics of a heap in which, of 32 aligned pages, just these are free."""
    with bsa.Allocator(64 * PAGE, cpus=1) as heap:
        pages = sorted(heap.malloc(PAGE) for _ in range(heap.free_pages))
        first = next(page for page in pages if page % (32 * PAGE) == 0)
        for page in free:
            heap.free(first + page * PAGE)
        blocks = heap.free_blocks()
    return (
        f"{metrics.largest_hole(blocks)} pages",
        f"{metrics.unusable_free_index(blocks, 3) / 1000:.3f}",
        f"{metrics.fragmentation_index(blocks, 4) / 1000:.3f}",
        f"{metrics.sum_of_squares_index(blocks):.3f}",
    )


if __name__ == "__main__":
    main()
