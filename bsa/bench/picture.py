"""A picture of ratios: for each row a line, and on it a dot for each candidate.

The axis is logarithmic: twice as fast and twice as slow are equally far from 1. A bar through a dot
goes from the smallest to the largest ratio of any turn.
"""

import math

from bsa.svg import FAINT_INK, GRID, INK, Drawing, Paint, text_width

_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#8c7ae6", "#999999", "#b8a200")
_LEFT, _RIGHT, _TOP, _LINE, _SIZE = 150, 24, 74, 26, 12
_WIDTH, _DOT = 760, 5


def draw(title, subtitle, rows):
    """A Picture. `rows`: name to {candidate: Series of ratios}; 1 is what they are measured by."""
    candidates = list(dict.fromkeys(name for ratios in rows.values() for name in ratios))
    paints = dict(zip(candidates, map(Paint, _COLOURS * len(candidates))))
    axis = _Axis(
        [value for ratios in rows.values() for one in ratios.values() for value in one.present]
    )
    bottom = _TOP + _LINE * len(rows)
    drawing = Drawing()
    drawing.text(16, 24, title, size=16, weight="bold")
    drawing.text(16, 42, subtitle, size=_SIZE, fill=FAINT_INK)
    _draw_legend(drawing, paints)
    _draw_grid(drawing, axis, bottom)
    for number, (name, ratios) in enumerate(rows.items()):
        y = _TOP + _LINE * (number + 0.5)
        drawing.text(_LEFT - 12, y + 4, name, size=_SIZE, anchor="end")
        for candidate, series in ratios.items():
            _draw_dot(drawing, axis, y, series, paints[candidate], f"{name}, {candidate}")
    description = f"{subtitle}. Rows: {', '.join(rows)}. Candidates: {', '.join(candidates)}."
    return drawing.finished(_WIDTH, bottom + 34, title, description)


class _Axis:
    """Powers of two from below the smallest value, 1 and all above to the largest."""

    def __init__(self, values):
        positive = [value for value in values if value > 0] + [1]
        self.first = math.floor(math.log2(min(positive)) - 0.1)
        self.last = math.ceil(math.log2(max(positive)) + 0.1)

    def x(self, value):
        share = (math.log2(value) - self.first) / (self.last - self.first)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def ticks(self):
        step = -(-(self.last - self.first) // 10)
        return [power for power in range(self.first, self.last + 1) if power % step == 0]


def _draw_legend(drawing, paints):
    x = _LEFT
    for name, paint in paints.items():
        _draw_circle(drawing, x, 59, paint, None)
        drawing.text(x + 10, 63, name, size=_SIZE)
        x += text_width(name, _SIZE) + 40


def _draw_grid(drawing, axis, bottom):
    for power in axis.ticks():
        x = axis.x(2**power)
        drawing.line(x, _TOP, x, bottom, GRID if power else INK)
        label = f"{2**power:,}" if power >= 0 else f"1/{2**-power:,}"
        drawing.text(x, bottom + 18, label, size=11, fill=FAINT_INK, anchor="middle")


def _draw_dot(drawing, axis, y, series, paint, name):
    low, median, high = min(series.present), series.median, max(series.present)
    drawing.line(axis.x(low), y, axis.x(high), y, paint, width=2)
    _draw_circle(
        drawing, axis.x(median), y, paint, f"{name}: {median:.2f} ({low:.2f} to {high:.2f})"
    )


def _draw_circle(drawing, x, y, paint, title):
    drawing.rect(x - _DOT, y - _DOT, 2 * _DOT, 2 * _DOT, paint, radius=_DOT, title=title)
