"""What views share when they draw with matplotlib; imported, like it, only when that is asked for."""

try:
    from matplotlib import colors, pyplot, rcParams  # type: ignore  # it has no types
    from matplotlib.collections import PolyCollection  # type: ignore
    from matplotlib.patches import Patch  # type: ignore
except ImportError as error:
    raise ImportError(
        "plot() draws with matplotlib, which is not installed: "
        "pip install matplotlib, or save() an SVG without it"
    ) from error

from bsa.units import format_size

_BAR = 0.9  # of a row's height
_MOST_LABELS = 5  # of a group
_TITLE = 3  # rows of room for a group's title


def axes(ax):
    """`ax`, or matplotlib's current axes, made if need be."""
    return pyplot.gca() if ax is None else ax


def rgba(paint):
    """A Paint as matplotlib takes it; ink is of the colour of its text."""
    colour = rcParams["text.color"] if paint.colour == "currentColor" else paint.colour
    return colors.to_rgba(colour, paint.opacity)


def plot_rows(ax, rows):
    """Rows of Spans, as strips.draw_rows has them: row 0 on top, a row one unit high."""
    corners, paints = [], []
    for row, spans in enumerate(rows):
        for start, end, paint, _, _ in spans:
            corners.append([(start, row), (end, row), (end, row + _BAR), (start, row + _BAR)])
            paints.append(rgba(paint))
    ax.add_collection(PolyCollection(corners, facecolors=paints, edgecolors="none"))
    ax.set_ylim(max(len(rows), 1) - 1 + _BAR, 0)


def plot_legend(ax, legend):
    """(name, Paint) of each colour, at the right of the axes."""
    patches = [Patch(facecolor=rgba(paint), label=name) for name, paint in legend]
    ax.legend(handles=patches, loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")


def plot_shares(ax, edges, groups, labels):
    """Groups of rows of shades below each other, all between the same edges. A group is a title, rows
    of shares from 0 to 1, the first one lowest, a colour, and what 1 means; `labels` are those of the
    rows."""
    count = len(labels)
    height = len(groups) * (count + _TITLE)
    ticks = {}
    for index, (title, rows, colour, most) in enumerate(groups):
        shades = [colors.to_rgba(colour, opacity) for opacity in (0, 1)]
        colour_map = colors.LinearSegmentedColormap.from_list(title, shades)
        low = (len(groups) - 1 - index) * (count + _TITLE)
        levels = range(low, low + count + 1)
        mesh = ax.pcolormesh(edges, levels, rows, cmap=colour_map, vmin=0, vmax=1)
        ax.text(edges[0], low + count, title, va="bottom", fontsize="medium")
        place = [1.01, low / height, 0.02, count / height]
        ax.figure.colorbar(mesh, cax=ax.inset_axes(place)).set_ticks([0, 1], labels=["0", most])
        every = -(-count // _MOST_LABELS)
        ticks.update({low + row + 0.5: labels[row] for row in range(0, count, every)})
    ax.set_ylim(0, height)
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize="small")


def label_bytes(axis, ticks):
    """Ticks in bytes, labelled with units."""
    axis.set_ticks(list(ticks), [format_size(tick) for tick in ticks])
