"""Pictures of heaps, timelines and traces.

Each function takes what is to be looked at and returns a View: Jupyter shows it, `save(path)` writes
an SVG file, `plot(ax=None)` draws it with matplotlib where that is installed:

    bsa.views.heap_map(heap).save("map.svg")

One idea a file: what is to be drawn is gathered first (a dataclass of plain numbers), and drawn from
that, by SVG or by matplotlib. What views share: colours (colours.py), headings, legends and axes
(frame.py), and rows of spans (strips.py).
"""

from bsa.views.asking import request_curve
from bsa.views.comparing import comparison_bars
from bsa.views.histograms import histograms
from bsa.views.maps import heap_map
from bsa.views.memory import memory_timeline
from bsa.views.occupancy import slab_strips
from bsa.views.orders import order_map
from bsa.views.pinning import pins_map
from bsa.views.tree import buddy_tree
from bsa.views.view import View

__all__ = [
    "View",
    "buddy_tree",
    "comparison_bars",
    "heap_map",
    "histograms",
    "memory_timeline",
    "order_map",
    "pins_map",
    "request_curve",
    "slab_strips",
]
