"""The notebooks of examples/: kept without outputs, and run by a kernel of the Python that runs the tests."""

import json
import pathlib
import re
import sys
import textwrap

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# What the text of a notebook says of its figures. It runs as one more cell at the end.
CLAIMS = {
    "1-five-minute-tour": """
        assert block.usable_size == 112
        costs = bsa.views.request_curve(bsa.Allocator(1 << 20, cpus=1))
        assert [costs.of(size).served for size in (1, 17, 2049, 4097)] == [8, 32, 4096, 8192]
        assert all(size >= 7 / 8 * costs.of(size).served for size in range(100, 2049))
        assert len(pins) == 4 and heap.largest_free == 32 << 10
        full = max(range(len(timeline)), key=timeline.allocated.__getitem__)
        slack = timeline.slab_slack
        rounding = [a + b for a, b in zip(timeline.class_rounding, timeline.page_rounding)]
        assert slack[full // 4] > rounding[full // 4] and rounding[full] > slack[full]
        assert slack[full] < 1.5 * slack[full // 4]
        assert slack[-1] > 0.8 * timeline.allocated[-1]
        assert trace.peak[1] < smallest < 2 * trace.peak[1]
    """,
    "2-why-is-my-memory-full": """
        idle = Counter()
        for slab in heap.slabs():
            idle[slab.size] += slab.free_count * slab.size
        assert sum(idle[size] for size in (64, 80, 96, 112, 128)) > 0.8 * idle.total()
        full = max(range(len(timeline)), key=timeline.allocated.__getitem__)
        assert timeline.requested[full] > 0.8 * timeline.allocated[full]
        assert 0.4 < timeline.slab_slack[-1] / timeline.allocated[-1] < 0.7
        while_reading = [made[part] for part in range(8, 14)]
        assert made[0] > 1000 and made[PARTS - 2] < 10
        assert 100 < min(while_reading) <= max(while_reading) < 1.2 * min(while_reading)
        assert phase == "reading" and share > 0.9
        assert len(bsa.pins(heap, 6)) > 10 and bsa.pins(heap, 6).size < 64 << 10
        assert abs(better_timeline.requested[-1] / timeline.requested[-1] - 1) < 0.05
        assert better_timeline.allocated[-1] < 0.6 * timeline.allocated[-1]
        assert better_smallest < 0.6 * smallest
        assert 0 < smallest - timeline.managed < 0.05 * smallest
    """,
    "3-page-size-and-classes": """
        from bsa.views.tightest import tightest

        losses = tightest(tight).losses
        assert losses[0].what == "blocks of 8,224 to 12,992 bytes, most of 8,224, in 16 KiB"
        assert 0.7 < losses[0].size / sum(loss.size for loss in losses) < 0.8
        ratios = comparison.column("times_peak")
        assert min(ratios[:4]) > 1.5 > 1.2 > max(ratios[4:])
        assert bsa.smallest_heap(trimmed, cpus=1) < 1.2 * trimmed.peak[1]
        rounding = comparison.column("page_rounding")[:4]
        assert min(rounding[:3]) > 10 * rounding[3]
        slack = comparison.column("slab_slack")[:4]
        assert list(slack) == sorted(slack) and slack[3] > slack[1] + rounding[1]
        assert 1.2 * program.peak[1] < smallest < 1.4 * program.peak[1]
        losses = tightest(replay_tightly(bsa.Trace.load(TRACES + "sqlite3.bsa"))).losses
        assert [loss.what for loss in losses[:3]] == [
            "blocks of 524,296 bytes in 1 MiB",
            "blocks of 262,152 bytes in 512 KiB",
            "blocks of 4,104 to 4,368 bytes, most of 4,368, in 8 KiB",
        ]
        assert losses[0].size + losses[1].size > sum(loss.size for loss in losses) / 2
    """,
    "4-buddy-allocator-in-pictures": """
        assert 0.97 < needed / (1 + order / 2) < 1.03
        assert heap.free_pages > heap.total_pages / 2
        first = sixteen_pages().sections[0]
        assert first.start - first.region_start == 0x1000
        assert with_free_pages(0, 1, 5, 6).free_blocks()[:5] == (2, 1, 0, 0, 0)
        heap = with_free_pages(0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 13, 14)
        assert [pin.address for pin in bsa.pins(heap, 3)] == [heap.sections[0].start + 5 * PAGE]
        heap = sixteen_pages()
        page = heap.alloc_pages(1)
        assert heap.free_blocks()[:5] == (1, 1, 1, 1, 0)
        four = heap.alloc_pages(3)
        page.free()
        assert heap.free_blocks()[:5] == (0, 0, 1, 1, 0)
    """,
}


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def text_of(path):
    """All that is written in the cells."""
    return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])


# ---- What is kept in the repository ----


@each
def test_a_notebook_is_kept_without_outputs(path):
    """jupyter nbconvert --clear-output --inplace examples/*.ipynb"""
    for cell in cells(path, "code"):
        assert (cell["execution_count"], cell["outputs"]) == (None, []), cell["id"]


@each
def test_a_notebook_tells_nothing_of_where_it_was_written(path):
    assert json.loads(path.read_text())["metadata"]["kernelspec"]["name"] == "python3"
    assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|usr|opt|mnt|work)\b", path.read_text())


@each
def test_a_notebook_is_written_as_jupyter_would(path):
    text = path.read_text(encoding="utf-8")
    again = json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False)
    assert text == again + "\n"


@each
def test_links_of_a_notebook_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#\s]+)", text_of(path))
    assert links
    for link in links:
        assert (EXAMPLES / link).exists(), link


# ---- What they do ----


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """The name of a kernel that is this Python, with no user's settings."""
    for module in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("jupyter")
    spec = folder / "kernels" / "this-python" / "kernel.json"
    spec.parent.mkdir(parents=True)
    options = "-X frozen_modules=off -m ipykernel_launcher -f {connection_file}".split()
    command = [sys.executable, *options]
    spec.write_text(json.dumps({"argv": command, "display_name": "this", "language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(variable, str(folder))
        yield "this-python"


@each
def test_a_notebook_runs_and_shows_what_it_tells_of(path, kernel):
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    notebook.cells.append(nbformat.v4.new_code_cell(textwrap.dedent(CLAIMS[path.stem])))
    client = nbclient.NotebookClient(
        notebook, kernel_name=kernel, timeout=120, resources={"metadata": {"path": str(EXAMPLES)}}
    )
    client.execute()  # raises the error of a cell that fails

    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        assert not [o.text for o in cell.outputs if o.get("name") == "stderr"], cell.id
    pictures = [cell for cell in code if "picture" in cell.metadata.get("tags", ())]
    assert pictures
    assert [cell.id for cell in pictures if not shows_a_picture(cell)] == []


def shows_a_picture(cell):
    return any("<svg" in output.get("data", {}).get("text/html", "") for output in cell.outputs)
