"""The heap through time: a fixed number of looks at its pages while a trace runs, packed as text.

A look keeps the map of the pages in at most MOST_CELLS cells, so a report stays small whatever the
heap and the trace.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from bsa._core import Allocator
from bsa.births import Steps
from bsa.svg import Paint
from bsa.views import page_map

FRAMES = 96  # spread evenly; two more show the beginning and the peak
MOST_CELLS = 4096
_AS_BEFORE = "="


class Frame(NamedTuple):
    """The heap after some events. Sizes are bytes."""

    event: int  #: number of events run
    live: int  #: bytes as asked for
    held: int  #: pages that are not free
    hole: int  #: the largest free block
    cells: bytes  #: for each cell the index of its paint


@dataclass(frozen=True)
class Film:
    """Frames in the order of time, and what their cells mean."""

    frames: tuple[Frame, ...]
    paints: tuple[Paint, ...]
    pages_per_cell: int

    def packed(self):
        """The cells of each frame as text: runs, each of a letter for the paint (a is paints[0]) or
        `=` for "as in the frame before", and of the run's length if that is more than 1."""
        before = [None] * len(self.frames[0].cells)
        texts = []
        for frame in self.frames:
            texts.append(_runs(before, frame.cells))
            before = frame.cells
        return texts


def film(study, at_frame):
    """Run the trace of a Study in a heap like the study's, and look at it at FRAMES moments, at the
    beginning and at the peak: a Film. `at_frame(heap, steps)` is called at each, with the heap and
    the Steps that have brought it there."""
    page_size = study.end.timeline.page_size
    with Allocator(study.size, page_size=page_size, cpus=study.cpus) as heap:
        steps, camera = Steps(study.trace, heap), _Camera(heap)
        for event, live in sorted(_live_bytes(study).items()):
            steps.run(event)
            camera.take(event, live)
            at_frame(heap, steps)
    return camera.film()


def peak_moment(trace):
    """The number of events after which the most bytes are live."""
    return min(trace.peak[0] + 1, len(trace))


def _live_bytes(study):
    """{number of events run: bytes live then} for each moment of the film. The heap itself would
    count small objects as granted; the timeline knows what was asked for."""
    timeline = study.end.timeline
    samples = {max(len(timeline) * k // FRAMES - 1, 0) for k in range(1, FRAMES + 1)}
    live = {timeline.event[sample]: timeline.requested[sample] for sample in samples}
    return {0: 0, **live, peak_moment(study.trace): study.trace.peak[1]}


class _Camera:
    """Takes the frames of a film."""

    def __init__(self, heap):
        self._heap = heap
        self._frames = []
        self._paints = {}  # paint: index
        counts = [section.total_pages for section in heap.sections]
        self._pages_per_cell = page_map.pages_per_cell(counts, MOST_CELLS)

    def take(self, event, live):
        heap = self._heap
        states = b"".join(section.page_states() for section in heap.sections)
        per_cell = self._pages_per_cell
        cells = bytes(
            self._index_of(_paint_of(states[start : start + per_cell]))
            for start in range(0, len(states), per_cell)
        )
        self._frames.append(Frame(event, live, heap.allocated_bytes, heap.largest_free, cells))

    def film(self):
        return Film(tuple(self._frames), tuple(self._paints), self._pages_per_cell)

    def _index_of(self, paint):
        return self._paints.setdefault(paint, len(self._paints))


@lru_cache(4096)  # most cells look like one before
def _paint_of(pages):
    (paint,) = page_map.cell_paints(pages, len(pages))
    return paint


def _runs(before, cells):
    letters = (_AS_BEFORE if old == new else chr(ord("a") + new) for old, new in zip(before, cells))
    runs = ((letter, sum(1 for _ in run)) for letter, run in groupby(letters))
    return "".join(letter if length == 1 else f"{letter}{length}" for letter, length in runs)
