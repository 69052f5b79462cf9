"""What Jupyter shows of an Allocator: its main numbers, and a map of its pages.

One fragment without scripts, styles or identifiers of its own, so that any number of them fit into a
notebook. It takes the colours of its surroundings for text; those of the map are of Okabe and Ito's
palette, free pages a grey that is visible on light and on dark ground. A large heap has many pages to a cell,
so that the fragment stays small.
"""

from html import escape

from bsa.plot import _USES, _strokes
from bsa.units import counted, format_size, percent

_FREE = "#8888884d"

_COLUMNS = 96
_CELLS = 24 * _COLUMNS  # at most, over all sections
_SECTIONS = 12  # at most; of further ones only the number is told
_CELL = 6  # units of the picture
_LEAST_OPACITY = 0.35


def allocator_html(allocator):
    """An HTML fragment for the allocator as it is now."""
    if allocator.closed:
        return _fragment("bsa.Allocator, closed", "")
    try:
        sections = allocator.sections
    except RuntimeError as error:  # in a forked child, over memory of its parent
        return _fragment(f"bsa.Allocator: {error}", "")
    if not sections:
        return _fragment("bsa.Allocator without memory: add_region() gives it some", "")
    return _fragment("bsa.Allocator", _table(_numbers(allocator)) + _maps(sections))


def _fragment(title, body):
    return f'<div><div style="font-weight:bold">{escape(title)}</div>{body}</div>'


def _numbers(allocator):
    """(what, how much) as texts."""
    stats = allocator.stats()
    managed, held = allocator.managed_bytes, allocator.allocated_bytes
    sections = len(allocator.sections)
    numbers = [
        (
            "managed",
            f"{format_size(managed)}: {counted(allocator.total_pages, 'page')} of"
            f" {format_size(allocator.page_size)} in {counted(sections, 'section')}",
        ),
        ("held", f"{format_size(held)} ({percent(held, managed)})"),
        ("granted", f"{format_size(stats.current_bytes)}, at most {format_size(stats.peak_bytes)}"),
        ("requested", format_size(allocator.requested_bytes)),
        ("live", f"{counted(stats.current_count, 'allocation')} of {stats.total_count:,} ever"),
        ("largest free block", format_size(allocator.largest_free)),
    ]
    if stats.parked_bytes:
        numbers.append(("parked", format_size(stats.parked_bytes)))
    if allocator.limit is not None:
        numbers.append(("limit", format_size(allocator.limit)))
    return numbers


def _table(numbers):
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(what)}</th>'
        f'<td style="text-align:left">{escape(how_much)}</td></tr>'
        for what, how_much in numbers
    )
    return f"<table>{rows}</table>"


def _maps(sections):
    sections, others = sections[:_SECTIONS], len(sections[_SECTIONS:])
    more = f" {counted(others, 'more section')}." if others else ""
    pages_per_cell = _pages_per_cell([section.total_pages for section in sections])
    maps = "".join(_map(section, pages_per_cell) for section in sections)
    cell = "a page" if pages_per_cell == 1 else f"{pages_per_cell:,} pages"
    return f"{maps}{_legend()}<div>Lowest address first; a cell is {cell}.{more}</div>"


def _pages_per_cell(pages):
    """The least power of two with which all sections' cells are few enough."""
    per_cell = 1
    while sum(-(-count // per_cell) for count in pages) > _CELLS:
        per_cell *= 2
    return per_cell


def _legend():
    uses = [*_USES.values(), ("free", _FREE)]
    return "".join(
        f'<span style="display:inline-block;width:0.8em;height:0.8em;background:{colour}"></span>'
        f' {name} <span style="display:inline-block;width:1em"></span>'
        for name, colour in uses
    )


def _map(section, pages_per_cell):
    states = section.page_states()
    cells = [
        _look(states[start : start + pages_per_cell])
        for start in range(0, len(states), pages_per_cell)
    ]
    columns = min(len(cells), _COLUMNS)
    rows = -(-len(cells) // _COLUMNS)
    width, height = columns * _CELL, rows * _CELL
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}"'
        f' viewBox="0 0 {columns} {rows}" shape-rendering="crispEdges"'
        ' style="display:block;margin:4px 0">'
        f"<title>Section {section.index}</title><desc>{_shares(states)}</desc>"
        + "".join(_path(look, path) for look, path in _strokes(cells, _COLUMNS).items())
        + "</svg>"
    )


def _path(look, path):
    colour, opacity = look
    fade = "" if opacity == 1 else f' opacity="{opacity:.2f}"'
    return f'<path stroke="{colour}"{fade} d="{path}"/>'


def _shares(states):
    """What the pages are used for, in words."""
    uses = [*((state, name) for state, (name, _) in _USES.items()), (0, "free")]
    shares = (f"{percent(states.count(state), len(states))} {name}" for state, name in uses)
    return f"{counted(len(states), 'page')}: {', '.join(shares)}"


def _look(pages):
    """A cell's colour and opacity: of its most frequent use, paler the more of it is free."""
    used = len(pages) - pages.count(0)
    if used == 0:
        return _FREE, 1
    colour = _USES[max(_USES, key=pages.count)][1]
    quarters = -(-4 * used // len(pages))
    return colour, _LEAST_OPACITY + (1 - _LEAST_OPACITY) * (quarters - 1) / 3
