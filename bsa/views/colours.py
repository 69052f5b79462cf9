"""What the colours mean, in all views.

Okabe and Ito's palette, which colour-blind people can tell apart (Color Universal Design, 2008), in
those of its colours that are visible on light and on dark ground. What is free is grey: the stronger,
the larger the block. Where a number is a shade, it is the opacity of one colour.
"""

from bsa.svg import Paint

ORANGE, SKY, GREEN = "#e69f00", "#56b4e9", "#009e73"
BLUE, VERMILLION, PURPLE = "#0072b2", "#d55e00", "#cc79a7"
GREY = "#888888"

PAGES = Paint(BLUE)
SLAB = OBJECT = Paint(ORANGE)
EMPTY_SLAB = Paint(PURPLE)
LOSS = Paint(VERMILLION)
REQUESTED = Paint(GREEN)
SLACK = Paint(ORANGE, 0.28)  # in maps: paler than the palest cell of objects
HELD = Paint(ORANGE, 0.45)  # the same as an amount, in bands and bars
METADATA = Paint("currentColor", 0.8)
FREE = Paint(GREY, 0.3)


def free_paint(order, largest):
    """Of a free block: the stronger, the nearer its order is to the largest."""
    return Paint(GREY, round(0.15 + 0.55 * order / max(largest, 1), 2))


def shade(colour, share, steps=8):
    """`share` (0 to 1) of the colour, in a few steps; None for nothing at all."""
    if share <= 0:
        return None
    return Paint(colour, round(max(1, round(share * steps)) / steps, 3))
