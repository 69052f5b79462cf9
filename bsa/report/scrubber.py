"""The scrubber: a map of the heap's pages, drawn by a small script, and a slider that moves it
through time. With the slider's own keys (arrows, Page Up and Down, Home and End) all of it works
without a mouse; the arrow keys to the left and right do so from anywhere on the page.
"""

import json

from bsa.report.frames import Film
from bsa.units import format_size
from bsa.views import page_map

COLUMNS = 128  # cells in a row of the map
CELL = 16  # pixels of the canvas; the page shows it in half its size, for sharp screens

STYLE = """\
#map { display: block; width: 100%; }
#scrubber { display: block; width: 100%; margin: 12px 0 4px; accent-color: #0072b2; }
#readout { display: flex; flex-wrap: wrap; gap: 4px 32px; margin: 8px 0; }
#readout b { font-variant-numeric: tabular-nums; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px;
  margin-right: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; }
"""

_SCRIPT = """\
"use strict";
const data = JSON.parse(document.getElementById("frames").textContent);
const canvas = document.getElementById("map"), slider = document.getElementById("scrubber");
const ink = canvas.getContext("2d"), letterA = "a".charCodeAt(0);

// The cells of every frame: runs of a letter (which paint) or "=" (as before), and of a length.
let before = [];
const frames = data.cells.map(text => {
  const cells = [];
  for (const [, letter, length] of text.matchAll(/([a-z=])(\\d*)/g)) {
    for (let left = Number(length || 1); left > 0; left--) {
      cells.push(letter === "=" ? before[cells.length] : letter.charCodeAt(0) - letterA);
    }
  }
  return before = cells;
});

function show() {
  const frame = Number(slider.value), side = data.cell - 2;
  ink.clearRect(0, 0, canvas.width, canvas.height);
  frames[frame].forEach((paint, cell) => {
    [ink.fillStyle, ink.globalAlpha] = data.paints[paint];
    const x = cell % data.columns * data.cell, y = Math.floor(cell / data.columns) * data.cell;
    ink.fillRect(x, y, side, side);
  });
  for (const [name, texts] of Object.entries(data.texts)) {
    document.getElementById(name).textContent = texts[frame];
  }
  slider.setAttribute("aria-valuetext", "event " + data.texts.event[frame]);
}

slider.addEventListener("input", show);
document.addEventListener("keydown", event => {
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (step && event.target !== slider && !event.altKey && !event.ctrlKey && !event.metaKey) {
    slider.value = Number(slider.value) + step;
    show();
  }
});
show();
"""

_READOUT = (
    ("event", "events run", "of those in the trace"),
    ("live", "live", "bytes asked for"),
    ("held", "held", "pages in use"),
    ("hole", "largest hole", "the largest free block"),
)


def scrubber(film: Film, start: int):
    """The HTML fragment, at first with the frame after `start` events. STYLE goes with it."""
    events = [frame.event for frame in film.frames]
    cells = len(film.frames[0].cells)
    width, height = min(cells, COLUMNS) * CELL, -(-cells // COLUMNS) * CELL
    return (
        f'<canvas id="map" width="{width}" height="{height}" role="img" '
        f'style="max-width:{width // 2}px" aria-label="Map of the heap\'s pages" '
        'aria-describedby="readout"></canvas>'
        f'<input id="scrubber" type="range" min="0" max="{len(events) - 1}" '
        f'value="{events.index(start)}" aria-label="Moment of the trace">'
        f'<div id="readout" role="status">{_readout()}</div>'
        f'<div class="legend">{_legend()}</div>'
        "<noscript>The map needs scripts to be allowed; the pictures below do not.</noscript>"
        f'<script type="application/json" id="frames">{_data(film)}</script>'
        f"<script>\n{_SCRIPT}</script>"
    )


def _readout():
    return "".join(
        f'<span title="{title}">{name} <b id="{id}"></b></span>' for id, name, title in _READOUT
    )


def _legend():
    return "".join(
        f'<span><span class="swatch" style="background:{paint.colour};opacity:{paint.opacity:g}">'
        f"</span>{name}</span>"
        for name, paint in page_map.LEGEND
    )


def _data(film):
    """What the script needs, as JSON. There are no texts of the user's in it."""
    frames, last = film.frames, film.frames[-1].event
    texts = {
        "event": [f"{frame.event:,} of {last:,}" for frame in frames],
        "live": [format_size(frame.live) for frame in frames],
        "held": [format_size(frame.held) for frame in frames],
        "hole": [format_size(frame.hole) for frame in frames],
    }
    data = {
        "columns": COLUMNS,
        "cell": CELL,
        "paints": film.paints,
        "texts": texts,
        "cells": film.packed(),
    }
    return json.dumps(data, separators=(",", ":"))
