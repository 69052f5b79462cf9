"""The command line: what it prints, where it leaves pictures, and how it fails."""

import io
import os
import pty
import re
import shlex
import subprocess
import sys
import types
import xml.etree.ElementTree as ElementTree

import pytest

import bsa
from bsa import units
from bsa.__main__ import _parser, main
from bsa.progress import Progress
from bsa.record import RECORDER, Recording
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
    """The lines of the table, which ends at an empty line, by their names."""
    lines = text.partition("\n\n")[0].splitlines()
    return {line[:16].strip(): line[17:] for line in lines}


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
    assert table["lost most"] == "7.03 KiB: blocks of 1,000 bytes in 1 KiB (300)"


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
    assert f"The picture: {picture}" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["folder", "no/such/picture.svg", "file/picture.svg"])
def test_a_picture_that_cannot_be_written_is_refused_before_the_trace_is_read(
    output, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder.svg")
    open("file", "w").close()
    output = output.replace("folder", "folder.svg")
    assert main(["replay", "no such trace", "-o", output]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"python -m bsa replay: {output}") and "folder" in err


def test_a_picture_in_a_folder_that_is_read_only_is_refused(
    trace_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # for root, everything is allowed
    assert main(["replay", str(trace_file), "-o", str(tmp_path / "picture.svg")]) == 1
    out, err = capsys.readouterr()
    assert not out and f"cannot write in the folder {tmp_path}" in err


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
    table = table_of(capsys.readouterr().out)
    assert table["events"] == "0; 0 allocations never freed"
    assert list(table) == ["trace", "events", "threads", "heap", "peak live"]
    assert table["peak live"].startswith("0 bytes throughout")
    assert "peak live" in picture.read_text() and "×" not in picture.read_text()
    ElementTree.parse(picture)


def test_a_trace_of_blocks_without_bytes_can_be_replayed(tmp_path, capsys):
    Trace.from_events([(1, 0, 0, 0, 0)]).save(tmp_path / "zero")
    assert main(["replay", str(tmp_path / "zero")]) == 0
    table = table_of(capsys.readouterr().out)
    assert table["events"] == "1; 1 allocation never freed"
    assert table["peak live"].startswith("0 bytes throughout")


def test_a_single_byte_makes_a_table_of_plain_numbers(tmp_path, capsys):
    Trace.from_events([(1, 0, 1, 0, 0)]).save(tmp_path / "byte")
    assert main(["replay", str(tmp_path / "byte")]) == 0
    table = table_of(capsys.readouterr().out)
    assert table["smallest heap"] == "8,192 bytes (8 KiB), 8,192 times the peak live"
    assert table["unusable index"] == "1.000 for 4 KiB"


def test_without_samples_the_picture_has_the_end_alone(trace_file, tmp_path):
    picture = tmp_path / "picture.svg"
    assert main(["replay", str(trace_file), "--samples=0", "-o", str(picture)]) == 0
    assert "At the end" in picture.read_text()
    ElementTree.parse(picture)


@pytest.mark.parametrize("page_size", ["256", "64K"])
def test_the_page_size_can_be_chosen(trace_file, page_size, capsys):
    assert main(["replay", str(trace_file), "--page-size", page_size]) == 0
    size = units.format_size(units.parse_size(page_size))
    assert f"of {size}" in table_of(capsys.readouterr().out)["heap"]


# ---- Traces in which something is odd ----


@pytest.fixture
def odd_file(tmp_path):
    """A double free."""
    path = tmp_path / "odd.csv"
    path.write_text("op,id,size\nalloc,7,5000\nfree,7,0\nfree,7,0\n")
    return str(path)


@pytest.mark.parametrize("command", [["replay"], ["report", "-o", os.devnull], ["info"]])
def test_what_is_bad_is_refused_or_skipped_as_asked_for(command, odd_file, capsys):
    assert main([*command, odd_file]) == main([*command, "--bad=raise", odd_file]) == 1
    assert capsys.readouterr().err.count("line 4: expected a live block") == 2
    assert main([*command, "--bad=skip", odd_file]) == 0


def test_what_was_skipped_is_in_the_table(odd_file, capsys):
    assert main(["replay", "--bad=skip", odd_file]) == 0
    assert table_of(capsys.readouterr().out)["odd"] == "1 double free"


def test_a_recording_that_is_not_whole_is_told_in_the_table(tmp_path, capsys):
    meta = {"lost": 3, "cut": True, "status": 7, "missed_frees": "a few"}
    Trace.from_events([(1, 0, 1, 0, 0)], meta=meta).save(tmp_path / "t")
    assert main(["replay", str(tmp_path / "t")]) == 0
    assert table_of(capsys.readouterr().out)["odd"] == (
        "3 events lost by the source, the recording was cut short, the program failed with status 7"
    )


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
        (["replay", "x", "--samples", "1e3"], 2, "'1e3' is no whole number"),
        (["replay", "no such file"], 1, "no such file"),
        (["replay", "."], 1, "directory"),
        (["replay", __file__], 1, "test_cli.py: offset 0"),
        (["replay", "TRACE", "--page-size", "1000"], 1, "page"),
        (
            ["replay", "TRACE", "--size", "100"],
            1,
            "100 bytes are too small for metadata and one page of 4096\n",
        ),
        (["replay", "TRACE", "-o", "picture.png"], 2, "'picture.png': the name of a picture ends"),
        (["replay", "TRACE", "-o", "svg"], 2, "ends in .svg"),
        (["info", "no such file"], 1, "no such file"),
        (["replay", os.devnull], 1, "the file is empty\n"),
        (
            ["replay", "x", "--heap", "1M"],
            2,
            "arguments: --heap 1M (see python -m bsa replay --help)",
        ),
        (["replay", "x", "--pagesize=1K"], 2, "--pagesize=1K; did you mean --page-size? (see"),
        (
            ["report", "x", "--ouput", "y.html"],
            2,
            "did you mean --output? (see python -m bsa report",
        ),
        (
            ["report", "TRACE", "-o", "x.svg"],
            2,
            "'x.svg': the name of a page ends in .html or .htm",
        ),
        (["report", "TRACE", "-o", "no/x.html"], 1, "no/x.html: there is no folder"),
        (["record", "-o", "x"], 2, "no command to record"),
        (["record", "true"], 2, "required: -o/--output"),
        (["record", "--ouput", "x", "--", "true"], 2, "--ouput; did you mean --output?"),
        (["record", "-o", "no/such/x", "true"], 1, "there is no folder"),
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


@pytest.mark.parametrize(
    "command, name", [("replay", "x.svg"), ("report", "x.html"), ("report", "x")]
)
def test_no_output_replaces_the_trace_that_is_read(command, name, trace_file, capsys):
    path = trace_file.rename(trace_file.parent / name)
    before = path.read_bytes()
    link = trace_file.parent / f"link{path.suffix}"
    link.symlink_to(path)
    for output in (path, link):
        assert main([command, str(path), "-o", str(output)]) == 1
        assert f"{output} is the file to read" in capsys.readouterr().err
    assert path.read_bytes() == before


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


INTERRUPTED = """
import os, signal, sys
import bsa.study
from bsa.__main__ import main

def replay(*arguments, **options):
    os.kill(os.getpid(), signal.SIGINT)
    return bsa.replay(*arguments, **options)

bsa.study.replay = replay
print(main(["replay", sys.argv[1]]))
"""


def test_ctrl_c_ends_it_without_a_traceback(trace_file):
    command = [sys.executable, "-c", INTERRUPTED, str(trace_file)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (0, "130\n", "")


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


@pytest.mark.parametrize("stream", [None, object(), io.StringIO()])
def test_where_nobody_can_watch_progress_is_silent(stream, monkeypatch):
    monkeypatch.setattr("sys.stderr", stream)
    if isinstance(stream, io.StringIO):
        stream.close()
    with Progress() as progress:
        assert progress.step("replay", 100) is None


class Kernel:
    """What progress sees of IPython in a notebook: all that was displayed, and what it became."""

    kernel = True

    def __init__(self):
        self.told = []

    def get_ipython(self):
        return self

    def display(self, output, raw, display_id):
        self.told.append(("new", output["text/plain"]))
        return self

    def update(self, output, raw):
        self.told.append(("again", output["text/plain"]))


def test_progress_shows_in_a_notebook_on_one_line_that_is_empty_in_the_end(monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr("bsa.progress._PATIENCE", 0)
    monkeypatch.setattr("bsa.progress._INTERVAL", 0)
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", kernel)
    with open(os.devnull, "w") as nowhere, Progress(nowhere) as progress:
        step = progress.step("compare", 4)
        step(1)
        step(2)
    assert kernel.told == [("new", "compare: 25 %"), ("again", "compare: 50 %"), ("again", "")]


def test_in_other_shells_of_ipython_no_progress_is_shown(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    with open(os.devnull, "w") as nowhere, Progress(nowhere) as progress:
        assert progress.step("compare", 4) is None


# ---- record and info ----


@needs_recorder
def test_record_says_what_it_recorded_and_where_it_is(tmp_path):
    program = [sys.executable, "-S", "-c", "x = [object() for i in range(5000)]"]
    process = run("record", "-o", tmp_path / "work.bsa", "--", *program)
    assert process.returncode == 0 and process.stdout == ""
    trace = Trace.load(tmp_path / "work.bsa")
    assert re.fullmatch(
        rf"python -m bsa record: {len(trace):,} events, 1 thread, peak .*iB; in .*work.bsa\n",
        process.stderr,
    )


def test_record_says_that_a_program_asked_for_nothing(monkeypatch, capsys):
    empty = Recording(Trace.from_events([]), 0)
    monkeypatch.setattr("bsa.record.record", lambda command, output: empty)
    assert main(["record", "-o", "work.bsa", "true"]) == 0
    assert "no events: the program never called malloc; in work.bsa" in capsys.readouterr().err


def test_record_says_that_a_program_failed(monkeypatch, capsys):
    short = Trace.from_events([(1, 0, 1, 0, 0)], meta={"cut": False})
    for trace, what in ((Trace.from_events([]), "never called malloc"), (short, "peak 1 B")):
        done = Recording(trace, 7)
        monkeypatch.setattr("bsa.record.record", lambda command, output: done)
        assert main(["record", "-o", "work.bsa", "false"]) == 7
        told = f"{what}; the program failed with status 7; in work.bsa"
        assert told in capsys.readouterr().err


def test_info_shows_large_numbers_in_groups(tmp_path, capsys):
    Trace.from_events([(1, block, 10, 0, 0) for block in range(1200)]).save(tmp_path / "many")
    assert main(["info", str(tmp_path / "many")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"events +1,200 in ", out) and re.search(r"alloc +1,200\n", out)
    assert "11.7 KiB (12,000 bytes) alive after event 1,199" in out


def test_info_of_an_empty_trace_names_no_peak(tmp_path, capsys):
    Trace.from_events([]).save(tmp_path / "empty")
    assert main(["info", str(tmp_path / "empty")]) == 0
    assert "nothing was alive" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command, shown",
    [
        (["ls", "a b"], "ls 'a b'"),
        ("ls -l", "ls -l"),
        (5, "5"),
        (None, "None"),
        ("\x1b[2J", "\ufffd[2J"),
    ],
)
def test_info_shows_whatever_a_file_says_of_itself(command, shown, tmp_path, capsys):
    Trace.from_events([], meta={"command": command}).save(tmp_path / "odd")
    assert main(["info", str(tmp_path / "odd")]) == 0
    assert re.search(f"command +{re.escape(shown)}\n", capsys.readouterr().out)


def test_a_report_may_go_into_a_pipe(trace_file):
    command = [*BSA, "report", str(trace_file), "-o", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.lstrip().startswith("<!DOCTYPE html>")


# ---- --help ----


@pytest.mark.parametrize("command", ["record", "replay", "report", "info", "demo"])
def test_the_help_of_every_command_ends_with_an_example_that_can_be_parsed(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    *_, example = capsys.readouterr().out.strip().splitlines()
    assert example.startswith("Example: python3 -m bsa ")
    assert _parser().parse_args(shlex.split(example)[4:]).command == command


# ---- demo ----


@needs_recorder
def test_the_demo_leaves_a_picture_of_a_real_program(tmp_path):
    process = run("demo", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    table = table_of(process.stdout)
    assert int(table["events"].split(";")[0].replace(",", "")) > 1_000  # without a GIL, few
    assert "The picture: demo/picture.svg" in process.stdout
    assert "The trace:   demo/compileall.bsa" in process.stdout
    assert (
        ElementTree.parse(tmp_path / "demo" / "picture.svg").getroot().find("{*}title") is not None
    )


def test_without_the_recorder_the_demo_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bsa.record.RECORDER", tmp_path / "missing.so")
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 1
    assert "has no recorder" in capsys.readouterr().err


# ---- Numbers ----


@pytest.mark.parametrize(
    "number, text", [(0, "0 pages"), (1, "1 page"), (2, "2 pages"), (12345, "12,345 pages")]
)
def test_things_are_counted_in_words(number, text):
    assert units.counted(number, "page") == text


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
