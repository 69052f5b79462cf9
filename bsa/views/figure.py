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

_BAR = 0.9  # of a row's height


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
    ax.set_ylim(max(len(rows), 1), 0)


def plot_legend(ax, legend):
    """(name, Paint) of each colour, at the right of the axes."""
    patches = [Patch(facecolor=rgba(paint), label=name) for name, paint in legend]
    ax.legend(handles=patches, loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
