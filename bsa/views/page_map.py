"""Maps of pages by their states alone: what there is of a heap at any moment, and of any heap in no
time. A cell is one page or, of a large heap, a power of two of them.
"""

from bsa.units import counted, percent
from bsa.views import colours
from bsa.views.strips import faded

_FREE_STATE = 0

#: values of bsa.PageState: what it is called, and its paint
USES = {
    1: ("page blocks", colours.PAGES),
    2: ("slabs", colours.SLAB),
    3: ("empty slabs", colours.EMPTY_SLAB),
}

LEGEND = (*USES.values(), ("free", colours.FREE))


def cell_paints(states, pages_per_cell):
    """The paint of each cell: that of the most frequent use, paler the more of its pages are free."""
    return [
        _paint(states[start : start + pages_per_cell])
        for start in range(0, len(states), pages_per_cell)
    ]


def _paint(pages):
    used = len(pages) - pages.count(_FREE_STATE)
    if used == 0:
        return colours.FREE
    return faded(USES[max(USES, key=pages.count)][1], used / len(pages))


def pages_per_cell(counts, most):
    """The least power of two with which maps of so many pages each have at most `most` cells."""
    per_cell = 1
    while sum(-(-count // per_cell) for count in counts) > most:
        per_cell *= 2
    return per_cell


def shares(states):
    """What the pages are used for, in words."""
    names = {**{state: name for state, (name, _) in USES.items()}, _FREE_STATE: "free"}
    counts = {name: states.count(state) for state, name in names.items()}
    parts = [f"{percent(count, len(states))} {name}" for name, count in counts.items() if count]
    return f"{counted(len(states), 'page')}: {', '.join(parts) or 'nothing'}"
