"""The command line: what it prints, where it leaves pictures, and how it fails."""

import os
import pty
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

import bsa
from bsa import units
from bsa.__main__ import main
from bsa.progress import Progress
from bsa.record import RECORDER
from bsa.trace import Trace

BSA = [sys.executable, "-m", "bsa"]
needs_recorder = pytest.mark.skipif(not RECORDER.exists(), reason="built without the recorder")


@pytest.fixture
def trace_file(tmp_path):
    """Two threads, 300 blocks of 1000 bytes live at the peak, 100 of them to the end."""
    allocs = [(1, block, 1000, 0, block % 2) for block in range(300)]
    frees = [(4, block, 0, 0, 0) for block in range(200)]
    path = tmp_path / "some program.trace"
    Trace.from_events(allocs + frees).save(path)
    return path


def table_of(text):
    """The lines of the table by their names."""
    return {line[:16].strip(): line[17:] for line in text.splitlines()}


def run(*arguments, **options):
    return subprocess.run([*BSA, *map(str, arguments)], capture_output=True, text=True, **options)


# ---- replay ----


def test_replay_prints_where_the_memory_went(trace_file, capsys):
    assert main(["replay", str(trace_file)]) == 0
    out, err = capsys.readouterr()
    table = table_of(out)
    assert not err
    assert table["trace"] == "some program.trace"
    assert table["events"] == "500; 100 allocations never freed"
    assert table["threads"] == "2, replayed on 2 slots"
    assert table["peak live"] == "300,000 bytes (293 KiB), at event 299"
    assert table["granted"] == "307,200 bytes (300 KiB)"
    assert {"heap", "pages held", "internal loss", "external loss", "smallest heap"} <= set(table)


def test_the_table_agrees_with_the_allocator(trace_file, capsys):
    main(["replay", str(trace_file), "--size", "2M", "--cpus", "2"])
    table = table_of(capsys.readouterr().out)
    with bsa.Allocator(2 << 20, cpus=2) as heap:
        bsa.replay(Trace.load(trace_file)[:300], heap)
        assert f"{heap.allocated_bytes:,} bytes" in table["pages held"]
        loss = units.percent(heap.allocated_bytes - 300_000, heap.allocated_bytes)
        assert table["internal loss"].startswith(f"{loss} of the pages held")
        free = heap.managed_bytes - heap.allocated_bytes
        loss = units.percent(free - heap.largest_free, free)
        assert table["external loss"].startswith(f"{loss} of the free memory")
        assert f"{heap.total_pages:,} pages of 4 KiB" in table["heap"]


def test_replay_draws_the_picture_where_it_is_told(trace_file, tmp_path, capsys):
    picture = tmp_path / "picture.svg"
    assert main(["replay", str(trace_file), "-o", str(picture)]) == 0
    root = ElementTree.parse(picture).getroot()
    assert root.find("{*}title").text == "some program.trace"
    capsys.readouterr()


def test_the_smallest_heap_named_is_enough_and_one_page_less_is_not(trace_file, capsys):
    main(["replay", str(trace_file)])
    size = int(table_of(capsys.readouterr().out)["smallest heap"].split()[0].replace(",", ""))
    assert main(["replay", str(trace_file), "--size", str(size)]) == 0
    assert main(["replay", str(trace_file), "--size", str(size - 4096)]) == 1


def test_a_trace_that_does_not_fit_is_told_in_one_line_with_the_size_that_would(trace_file, capsys):
    assert main(["replay", str(trace_file), "--size", "200K"]) == 1
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    assert "some program.trace does not fit into 200K: event" in err
    enough = re.search(r"--size (\w+)", err)[1]
    assert main(["replay", str(trace_file), "--size", enough]) == 0


def test_an_empty_trace_can_be_replayed(tmp_path, capsys):
    Trace.from_events([]).save(tmp_path / "empty")
    picture = tmp_path / "picture.svg"
    assert main(["replay", str(tmp_path / "empty"), "-o", str(picture)]) == 0
    assert table_of(capsys.readouterr().out)["peak live"].startswith("0 bytes")
    ElementTree.parse(picture)


@pytest.mark.parametrize("page_size", ["256", "64K"])
def test_the_page_size_can_be_chosen(trace_file, page_size, capsys):
    assert main(["replay", str(trace_file), "--page-size", page_size]) == 0
    size = units.format_size(units.parse_size(page_size))
    assert f"of {size}" in table_of(capsys.readouterr().out)["heap"]


# ---- What users get wrong ----


@pytest.mark.parametrize(
    "arguments, status, text",
    [
        ([], 2, "COMMAND"),
        (["replay"], 2, "FILE"),
        (["repaly", "x"], 2, "invalid choice"),
        (["replay", "x", "--size", "lots"], 2, "'lots' is no size"),
        (["replay", "x", "--size", "-1"], 2, "--size"),
        (["replay", "x", "--cpus", "0"], 2, "'0' is no positive number"),
        (["replay", "x", "--samples", "1e3"], 2, "'1e3' is no positive number"),
        (["replay", "no such file"], 1, "no such file"),
        (["replay", "."], 1, "directory"),
        (["replay", __file__], 1, "test_cli.py: offset 0"),
        (["replay", "TRACE", "--page-size", "1000"], 1, "page"),
        (["replay", "TRACE", "--size", "100"], 1, ""),
        (["replay", "TRACE", "-o", "no/such/folder"], 1, "no/such/folder"),
    ],
)
def test_mistakes_are_one_line_on_stderr(arguments, status, text, trace_file, capsys):
    arguments = [str(trace_file) if argument == "TRACE" else argument for argument in arguments]
    try:
        assert main(arguments) == status
    except SystemExit as exit:
        assert exit.code == status
    out, err = capsys.readouterr()
    assert text in err and err.count("\n") == 1 and err.startswith("python -m bsa")


def test_a_damaged_trace_is_refused_with_the_place(trace_file, capsys):
    data = bytearray(trace_file.read_bytes())
    data[-3] ^= 1
    trace_file.write_bytes(data)
    assert main(["replay", str(trace_file)]) == 1
    assert re.search(r"some program.trace: .*(column|offset|thread)", capsys.readouterr().err)


def test_a_closed_pipe_ends_it_quietly(trace_file):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        process = subprocess.run(
            [*BSA, "replay", str(trace_file)], stdout=closed, stderr=subprocess.PIPE, text=True
        )
    assert process.returncode == 1 and process.stderr == ""


def test_ctrl_c_ends_it_without_a_traceback(tmp_path):
    Trace.from_events([(1, 0, 64, 0, 0), (4, 0, 0, 0, 0)] * 1_500_000).save(tmp_path / "long")
    interrupt = "import os, signal, threading; from bsa.__main__ import main; import sys\n"
    interrupt += "threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
    interrupt += f"while main(['replay', {str(tmp_path / 'long')!r}]) == 0: pass\n"
    process = subprocess.run([sys.executable, "-c", interrupt], capture_output=True, text=True)
    assert process.returncode == 0 and process.stderr == ""


# ---- Progress ----


def test_progress_shows_on_a_terminal_only(monkeypatch):
    monkeypatch.setattr("bsa.progress._PATIENCE", 0)
    with open(os.devnull, "w") as nowhere, Progress(nowhere) as progress:
        assert progress.step("replay", 100) is None
    try:
        master, slave = pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminal to be had: {error}")
    with os.fdopen(slave, "w") as terminal, Progress(terminal) as progress:
        progress.step("replay", 200)(50)
    assert b"replay: 25 %" in os.read(master, 1000)
    os.close(master)


# ---- demo ----


@needs_recorder
def test_the_demo_leaves_a_picture_of_a_real_program(tmp_path):
    process = run("demo", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    table = table_of(process.stdout)
    assert int(table["events"].split(";")[0].replace(",", "")) > 10_000
    assert "demo/picture.svg" in process.stdout
    assert (
        ElementTree.parse(tmp_path / "demo" / "picture.svg").getroot().find("{*}title") is not None
    )


def test_without_the_recorder_the_demo_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bsa.record.RECORDER", tmp_path / "missing.so")
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 1
    assert "has no recorder" in capsys.readouterr().err


# ---- Sizes ----


@pytest.mark.parametrize(
    "text, size",
    [
        ("4096", 4096),
        ("0x1000", 4096),
        ("64M", 64 << 20),
        ("64 MiB", 64 << 20),
        ("1g", 1 << 30),
        ("1.5K", 1536),
        ("0x10K", 16384),
        ("7B", 7),
    ],
)
def test_sizes_are_read_with_binary_units(text, size):
    assert units.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1.5", "0.3K", "64X", "1 2", "9" * 400 + ".5", "8192P"]
)
def test_what_is_no_size_is_a_value_error(text):
    with pytest.raises(ValueError):
        units.parse_size(text)


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1536, 4096, 4097, 64 << 20, 1 << 40])
def test_exact_sizes_are_read_back(size):
    assert units.parse_size(units.exact_size(size)) == size


@pytest.mark.parametrize(
    "size, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1 KiB"),
        (12345, "12.1 KiB"),
        (1 << 26, "64 MiB"),
        (5 << 60, "5120 PiB"),
    ],
)
def test_sizes_are_shown_with_three_digits(size, text):
    assert units.format_size(size) == text
