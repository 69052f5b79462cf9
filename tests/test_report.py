"""The report: one page that needs nothing else, and whose slider shows the heap as it was."""

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import tempfile

import pytest

import bsa
from bsa.__main__ import main
from bsa.report import frames
from bsa.report.pins import pins_html
from bsa.report.scrubber import CELL
from bsa.progress import Progress
from bsa.study import study
from bsa.trace import Trace
from bsa.units import format_size
from bsa.views import page_map

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: apt-get install chromium"
)


def trace_of_two_threads():
    """A first half that stays, a second that comes and goes: 300 blocks at the peak, event 399."""
    stay = [(1, block, 9000, 0, block % 2) for block in range(200)]
    come = [(1, 200 + block, 1000 + block, 0, 0) for block in range(200)]
    go = [(4, 200 + block, 0, 0, 1) for block in range(200)]
    return Trace.from_events(stay + come + go)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    trace_of_two_threads().save(folder / "a <program> & more.bsa")
    assert (
        main(["report", str(folder / "a <program> & more.bsa"), "-o", str(folder / "r.html")]) == 0
    )
    return folder / "r.html"


@pytest.fixture(scope="module")
def text(page_file):
    return page_file.read_text(encoding="utf-8")


def looks_at(trace, events, **options):
    """(live bytes, pages held, largest hole), and the states of pages, of a heap like the report's
    after so many events: replayed by the engine in C."""
    like = study_of(trace, **options)
    with bsa.Allocator(like.size, cpus=like.cpus, **options) as heap:
        live = bsa.replay(trace[:events], heap).requested[-1]
        numbers = live, heap.allocated_bytes, heap.largest_free
        return numbers, heap.sections[0].page_states()


def study_of(trace, **options):
    return study(trace, "", Progress(), **options)


# ---- The page ----


def test_the_page_shows_every_view(text):
    for title in (
        "Heap map",
        "Buddy tree",
        "What if I ask for N bytes?",
        "What pins order",
        "Memory over time",
        "Free blocks",
        "Sizes and lifetimes",
        "Slabs",
        "first fit",
        "tlsf",
        "pages of 16 KiB",
    ):
        assert title in text, title


def test_the_page_needs_nothing_else(text):
    assert not re.search(r"""\b(src|url)\s*[=(]|\bhref=(?!"#)""", text)
    assert not re.search(r"@import|\bimport\b|fetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text
    links = set(re.findall(r"""\w+://[^"'\s<]+""", text))
    assert links == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_names_of_files_are_text(text):
    assert "<title>a &lt;program&gt; &amp; more.bsa</title>" in text
    assert "<program>" not in text


def test_identifiers_are_unique_and_links_lead_to_them(text):
    ids = re.findall(r"""\bid="([^"]+)\"""", text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"""href="#([^"]+)\"""", text)) < set(ids)


@pytest.mark.parametrize("events", [[], [(1, 0, 0, 0, 0)], [(1, 0, 100, 0, 0), (4, 0, 0, 0, 0)]])
def test_the_smallest_traces_have_a_report(events, tmp_path):
    Trace.from_events(events).save(tmp_path / "small.bsa")
    assert main(["report", str(tmp_path / "small.bsa"), "-o", str(tmp_path / "r.html")]) == 0
    assert "<h1>small.bsa</h1>" in (tmp_path / "r.html").read_text()


def test_of_a_trace_without_events_one_sentence_is_said(tmp_path):
    Trace.from_events([]).save(tmp_path / "empty.bsa")
    assert main(["report", str(tmp_path / "empty.bsa")]) == 0
    text = (tmp_path / "empty.html").read_text()  # where a report goes that is told nothing else
    assert "nothing was asked for" in text and text.count("<section") == 1
    assert "<svg" not in text and 'getElementById("frames")' not in text


def test_a_heap_larger_than_the_largest_block_has_a_report(tmp_path):
    page = tmp_path / "r.html"
    trace_of_two_threads().save(tmp_path / "t.bsa")
    heap = ["--size=600M", "--page-size=256"]
    assert main(["report", str(tmp_path / "t.bsa"), "-o", str(page), *heap]) == 0
    assert "A block of every order that the heap has room for is free." in page.read_text()


def test_the_question_about_pins_is_the_first_that_teaches_something():
    with bsa.Allocator(bytearray(4 << 20)) as heap:
        blocks = [heap.alloc(4096) for _ in range(heap.free_pages)]
        assert "What pins order 0" in pins_html(heap, {})
        assert "itself at least as large" in pins_html(heap, {})
        for block in blocks:
            if block.address >> 12 & 7 == 0:  # of each eight pages one is free
                block.free()
        assert "The largest free block has 4 KiB.<" in pins_html(heap, {})
        assert "What pins order 1" in pins_html(heap, {})


def test_pins_as_large_as_the_block_are_passed_over():
    with bsa.Allocator(bytearray(1 << 20)) as heap:
        large = []
        while heap.largest_free >= 16 << 10:
            large.append(heap.alloc(16 << 10))
        for block in large:
            if block.address >> 14 & 1:  # of each two neighbours one stays, the other one becomes
                block.free()
        single = [heap.alloc(4096) for _ in range(heap.free_pages)]
        for block in single:
            if block.address >> 13 & 1:  # two blocks of a page, and two free pages
                block.free()
        assert [len(bsa.pins(heap, order)) for order in (2, 3)] == [1, 3]
        assert "The largest free block has 8 KiB.<" in pins_html(heap, {})
        assert "What pins order 3" in pins_html(heap, {})


def test_the_heap_can_be_chosen_as_for_a_replay(page_file, tmp_path):
    trace = page_file.parent / "a <program> & more.bsa"
    heap = ["--size=8M", "--page-size=8K", "--cpus=1"]
    assert main(["report", str(trace), "-o", str(tmp_path / "r.html"), *heap]) == 0
    text = (tmp_path / "r.html").read_text()
    assert "a cell is a page of 8 KiB" in text and "pages of 8 KiB" in text
    assert "replayed on 1 slot<" in text
    assert re.search(r"heap +8 MiB: [\d,]+ pages of 8 KiB", text)


def test_a_heap_that_is_too_small_is_refused_with_what_would_do(page_file, tmp_path, capsys):
    trace = page_file.parent / "a <program> & more.bsa"
    assert main(["report", str(trace), "-o", str(tmp_path / "r.html"), "--size=1M"]) == 1
    assert re.search(r"does not fit into 1M: event \d+ .*--size", capsys.readouterr().err)
    assert os.listdir(tmp_path) == []


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path, capsys):
    missing = tmp_path / "nowhere" / "r.html"
    assert main(["report", str(tmp_path / "no trace"), "-o", str(missing)]) == 1
    assert "there is no folder" in capsys.readouterr().err


# ---- Frames ----


def film_of(trace, **options):
    return frames.film(study_of(trace, **options), lambda heap, steps: None)


def unpacked(film):
    """What the script does, in Python."""
    cells = [None] * len(film.frames[0].cells)
    for text in film.packed():
        position = 0
        for letter, length in re.findall(r"([a-z=])(\d*)", text):
            for _ in range(int(length or 1)):
                if letter != "=":
                    cells[position] = ord(letter) - ord("a")
                position += 1
        assert position == len(cells)
        yield bytes(cells)


def test_frames_are_the_heap_at_their_events():
    trace = trace_of_two_threads()
    film = film_of(trace)
    assert [frame.event for frame in film.frames] == sorted({600 * k // 96 for k in range(97)})
    for frame in film.frames:
        numbers, states = looks_at(trace, frame.event)
        assert (frame.live, frame.held, frame.hole) == numbers
        paints = page_map.cell_paints(states, film.pages_per_cell)
        assert [film.paints[cell] for cell in frame.cells] == paints


def test_a_frame_shows_the_peak():
    events = [(1, block, 100, 0, 0) for block in range(997)] + [(4, 5, 0, 0, 0)]
    film = film_of(Trace.from_events(events))
    assert 997 in [frame.event for frame in film.frames]


@pytest.mark.parametrize("page_size", [256, 4096])
def test_packed_frames_can_be_unpacked(page_size):
    film = film_of(trace_of_two_threads(), page_size=page_size)
    assert (film.pages_per_cell > 1) == (page_size == 256)
    assert len(film.frames[0].cells) <= frames.MOST_CELLS
    assert list(unpacked(film)) == [frame.cells for frame in film.frames]


# ---- In a browser ----


class Browser:
    """Headless Chromium, spoken to through a pipe in its DevTools protocol."""

    def __init__(self, folder):
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        options = (
            "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe"
        )
        self._process = subprocess.Popen(
            # It reads from descriptor 3 and writes to 4.
            ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "-", CHROMIUM]
            + [*options.split(), f"--user-data-dir={folder}"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._received, self._number, self._session = b"", 0, None
        self._told = []  # events that nobody has asked for yet
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self._told.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self):
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._in], [], [], 60)
            assert ready, "the browser hangs"
            data = os.read(self._in, 1 << 16)
            assert data, "the browser has gone"
            self._received += data
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def open(self, path):
        """Returns what the browser told of until the page was loaded."""
        self.call("Page.enable")
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._told):
            self._told.append(self._receive())
        told, self._told = self._told, []
        return told

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key, code):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def close(self):
        with contextlib.suppress(AssertionError, OSError):
            self._session = None
            self.call("Browser.close")
        os.close(self._out)
        os.close(self._in)
        self._process.wait()


@pytest.fixture(scope="module")
def browser():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(folder)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, page_file):
    browser.open(page_file)
    return browser


LEFT, RIGHT, HOME, END = ("ArrowLeft", 37), ("ArrowRight", 39), ("Home", 36), ("End", 35)
_READOUT = (
    """["event", "live", "held", "hole"].map(id => document.getElementById(id).textContent)"""
)
_PIXELS = """(() => {
  const canvas = document.getElementById("map"), ink = canvas.getContext("2d"), cell = %d;
  const {data} = ink.getImageData(0, 0, canvas.width, canvas.height), pixels = [];
  for (let y = cell / 2; y < canvas.height; y += cell) {
    for (let x = cell / 2; x < canvas.width; x += cell) {
      pixels.push([...data.slice(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 4)]);
    }
  }
  return pixels;
})()"""


def shown(browser):
    """(number of events run, texts, pixels in the middle of the cells)."""
    event, *texts = browser.evaluate(_READOUT)
    pixels = browser.evaluate(_PIXELS % CELL)
    return int(event.partition(" of ")[0].replace(",", "")), texts, pixels


def is_painted(pixel, paint):
    colour = [int(paint.colour[place : place + 2], 16) for place in (1, 3, 5)]
    wanted = [*colour, 255 * paint.opacity]
    return all(abs(a - b) <= 3 for a, b in zip(pixel, wanted))  # browsers round opacities


def assert_shows_the_heap(browser, events):
    event, texts, pixels = shown(browser)
    assert event == events
    sizes, states = looks_at(trace_of_two_threads(), events)
    assert texts == [format_size(size) for size in sizes]
    paints = page_map.cell_paints(states, 1)
    assert all(map(is_painted, pixels, paints))
    assert len(pixels) >= len(paints)
    assert all(pixel == [0, 0, 0, 0] for pixel in pixels[len(paints) :])


@needs_chromium
def test_the_slider_begins_at_the_peak(opened):
    assert_shows_the_heap(opened, 400)


@needs_chromium
def test_the_keys_move_the_heap_through_time(opened):
    opened.evaluate("document.getElementById('scrubber').focus()")
    opened.press(*HOME)
    assert_shows_the_heap(opened, 0)
    opened.press(*RIGHT)
    assert_shows_the_heap(opened, 6)
    opened.press(*END)
    assert_shows_the_heap(opened, 600)
    opened.press(*LEFT)
    assert_shows_the_heap(opened, 593)


@needs_chromium
def test_the_arrow_keys_work_from_anywhere_on_the_page(opened):
    opened.press(*RIGHT)
    assert_shows_the_heap(opened, 406)
    opened.press(*LEFT)
    opened.press(*LEFT)
    assert_shows_the_heap(opened, 393)


@needs_chromium
def test_the_slider_itself_moves_the_heap(opened):
    """As a mouse does: it is set, and tells so by an event."""
    opened.evaluate(
        "{const slider = document.getElementById('scrubber'); slider.value = 48;"
        "slider.dispatchEvent(new Event('input'))}"
    )
    assert_shows_the_heap(opened, 300)


@needs_chromium
def test_nothing_is_loaded_and_nothing_fails(browser, page_file):
    for domain in ("Network", "Log", "Runtime"):
        browser.call(f"{domain}.enable")
    seen = browser.open(page_file)
    assert browser.evaluate("performance.getEntriesByType('resource').length") == 0
    bad = ("Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")
    assert not [message for message in seen if message["method"] in bad]
