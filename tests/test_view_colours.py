"""Colours that stand beside each other can be told apart, also by the colour-blind."""

import itertools

import pytest

from bsa.views import asking, colours, comparing, memory, page_map, pinning, strips, tree
from bsa.views.maps import HeapMap

GROUNDS = {"light": ("#ffffff", "#1f2933"), "dark": ("#16191d", "#e4e7eb")}  # ground and ink

# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision
# deficiency" (2009), severity 1.0: matrices for linear RGB.
SIGHTS = {
    "all colours": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}

FREE = [colours.free_paint(order, 10) for order in (0, 10)]

LEGENDS = {
    "pages": [*HeapMap((), 0, False, True)._kinds(), *(("free", paint) for paint in FREE)],
    "objects": [*HeapMap((), 0, True, True)._kinds(), *(("free", paint) for paint in FREE)],
    "page map": page_map.LEGEND,
    "tree": tree._LEGEND,
    "asking": asking._LEGEND,
    "pins": [*pinning._LEGEND, *(("free", paint) for paint in FREE)],
    "memory": memory._BANDS,
    "comparison": [
        ("metadata", comparing._METADATA),
        *((name, paint) for name, _, paint in comparing._PARTS),
        ("model", comparing._REFERENCE),
    ],
}


def rgb(colour):
    return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]


def painted(paint, ground, ink):
    """What is seen of a paint on a ground: opacity mixes the two as they are, as browsers do."""
    colour = rgb(ink if paint.colour == "currentColor" else paint.colour)
    return [c * paint.opacity + g * (1 - paint.opacity) for c, g in zip(colour, rgb(ground))]


def lab(colour, sight):
    """CIE L*a*b* (D65) of an sRGB colour as that sight has it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    seen = [sum(m * c for m, c in zip(row, linear)) for row in SIGHTS[sight]]
    r, g, b = (min(max(c, 0), 1) for c in seen)
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def distance(one, other, ground, sight):
    """CIE 1976: about 2 can just be seen where two colours touch."""
    colours = (lab(painted(paint, *GROUNDS[ground]), sight) for paint in (one, other))
    return sum((a - b) ** 2 for a, b in zip(*colours)) ** 0.5


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("legend", LEGENDS)
def test_colours_that_mean_different_things_can_be_told_apart(legend, ground, sight):
    for (name, one), (other_name, other) in itertools.combinations(LEGENDS[legend], 2):
        if name != other_name:
            assert distance(one, other, ground, sight) > 10, (name, other_name)


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("ground", GROUNDS)
def test_colours_can_be_told_from_their_ground(ground, sight):
    nothing = colours.Paint(GROUNDS[ground][0])
    for name, paint in itertools.chain(*LEGENDS.values()):
        assert distance(paint, nothing, ground, sight) > 5, name


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("legend", ["pages", "objects", "page map", "pins"])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_so_can_the_paler_shades_of_merged_cells(legend, ground, sight, quarters):
    """Of cells that are in use alike, and from what is free."""
    names = {name for name, _ in LEGENDS[legend]} - {"metadata"}  # which shares few cells
    paints = [
        (name, paint if "free" in name else strips.faded(paint, quarters / 4))
        for name, paint in LEGENDS[legend]
        if name in names
    ]
    for (name, one), (other_name, other) in itertools.combinations(paints, 2):
        if name != other_name:
            assert distance(one, other, ground, sight) > 5, (name, other_name)


def test_the_measure_finds_what_the_colour_blind_confuse():
    red, green = colours.Paint("#c05050"), colours.Paint("#708040")
    assert distance(red, green, "light", "all colours") > 50
    assert distance(red, green, "light", "deuteranopia") < 25
