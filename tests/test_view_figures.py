"""Views by matplotlib, where that is installed; and what is said where it is not."""

import subprocess
import sys
import textwrap

import pytest

import bsa
from bsa import views

try:
    import matplotlib
except ImportError:
    matplotlib = None

needs_matplotlib = pytest.mark.skipif(matplotlib is None, reason="no matplotlib")


@pytest.fixture
def pyplot():
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


@pytest.fixture(scope="module")
def seen():
    """A heap, a timeline, a trace and what else can be looked at."""
    events = [(1, k, 50 * k + 1, 0, 0) for k in range(120)]
    events += [(4, k, 0, 0, 0) for k in range(0, 120, 2)]
    trace = bsa.Trace.from_events(events)
    with bsa.Allocator(1 << 20, cpus=1) as heap:
        timeline = bsa.replay(trace, heap, samples=50)
        yield {
            "map": views.heap_map(heap),
            "objects": views.heap_map(heap, objects=True),
            "tree": views.buddy_tree(heap),
            "slabs": views.slab_strips(heap),
            "curve": views.request_curve(heap),
            "pins": views.pins_map(heap, 6),
            "memory": views.memory_timeline(timeline),
            "orders": views.order_map(timeline),
            "histograms": views.histograms(trace),
            "timeline": timeline,
        }


NAMES = ["map", "objects", "tree", "slabs", "curve", "pins", "memory", "orders", "histograms"]


@needs_matplotlib
@pytest.mark.parametrize("name", [*NAMES, "timeline"])
def test_a_plot_takes_and_returns_axes_with_labels_and_a_title(pyplot, seen, name):
    figure, (left, right) = pyplot.subplots(1, 2)
    assert seen[name].plot(right) is right
    assert right.get_title() and right.get_xlabel()
    assert not left.has_data()
    figure.canvas.draw()


@needs_matplotlib
@pytest.mark.parametrize("name", NAMES)
def test_without_axes_the_current_ones_are_used(pyplot, seen, name):
    current = pyplot.gca()
    assert seen[name].plot() is current
    assert current.has_data()


@needs_matplotlib
def test_all_sections_are_below_each_other(pyplot):
    with bsa.Allocator(1 << 20, cpus=1) as heap:
        heap.add_region(1 << 18)
        view = views.heap_map(heap)
    ax = view.plot()
    (drawn,) = ax.collections
    first, second = view.maps
    width = max(first.row_bytes, second.row_bytes)
    assert ax.get_xlim() == (0, width)
    spans = sum(span.end - span.start for part in view.maps for row in part.rows for span in row)
    lengths = [path.vertices[:, 0].max() - path.vertices[:, 0].min() for path in drawn.get_paths()]
    assert sum(lengths) == spans == first.size + second.size
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0] == "section 0: 0x0" and "section 1: 0x0" in labels


@needs_matplotlib
def test_the_indices_are_beside_the_free_blocks(pyplot, seen):
    ax = seen["orders"].plot()
    titles = {text.get_text() for text in ax.texts}
    assert {panel.title for panel in seen["orders"].panels()} == titles
    free, unusable, extfrag = (mesh.get_array() for mesh in ax.collections)
    assert unusable.ravel().tolist() == [v for row in seen["orders"].unusable for v in row]
    assert (free.max(), extfrag.min()) == (1, 0)


@needs_matplotlib
def test_the_classes_are_in_the_order_of_their_sizes_from_the_top(pyplot, seen):
    ax = seen["slabs"].plot()
    sizes = [int(label.get_text()) for label in ax.get_yticklabels()]
    assert sizes == sorted(sizes, reverse=True) and ax.get_ylim()[0] == 0, "the last one on top"


@needs_matplotlib
def test_lifetimes_have_a_plot_of_their_own(pyplot, seen):
    ax = pyplot.gca()
    assert seen["histograms"].plot_lifetimes() is ax
    assert "events" in ax.get_xlabel()


@needs_matplotlib
def test_the_stack_has_the_numbers_of_the_timeline(pyplot, seen):
    timeline = seen["timeline"]
    ax = timeline.plot()
    vertices = ax.collections[0].get_paths()[0].vertices
    highest = max(timeline.requested)
    assert vertices[:, 1].max() == pytest.approx(highest / 2**20)
    assert vertices[:, 0].max() == timeline.events


@needs_matplotlib
def test_a_comparison_has_a_plot(pyplot, seen):
    from concurrent.futures import ThreadPoolExecutor

    trace = bsa.Trace.from_events([(1, k, 5000, 0, 0) for k in range(9)])
    with ThreadPoolExecutor(1) as executor:
        comparison = bsa.compare(trace, {"a": {"cpus": 1}}, executor=executor)
    ax = comparison.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == list(comparison)


def run(code):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    ).stdout


def test_matplotlib_is_imported_only_by_plot():
    out = run(
        """
        import sys, bsa, bsa.views
        heap = bsa.Allocator(1 << 20)
        heap._repr_html_()
        bsa.views.heap_map(heap).picture()
        print("matplotlib" in sys.modules)
        """
    )
    assert out.strip() == "False"


def test_without_matplotlib_the_error_says_what_to_do():
    out = run(
        """
        import sys, bsa, bsa.views
        sys.modules["matplotlib"] = None
        try:
            bsa.views.heap_map(bsa.Allocator(1 << 20)).plot()
        except ImportError as error:
            print(error)
        """
    )
    assert "plot() draws with matplotlib, which is not installed: pip install matplotlib" in out
