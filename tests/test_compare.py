"""Comparisons: each row is what running the trace alone gives, and nothing is lost on the way."""

import concurrent.futures
import inspect
import io
import math
import multiprocessing
import os
import pickle
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from placement_model import place
from test_replay import random_trace

import bsa
from bsa import _core, progress
from bsa.compare import COLUMNS, OPTIONS, REFERENCES, reference_extent
from bsa.timeline import columns
from bsa.trace import Trace, TraceOp

comparing = sys.modules["bsa.compare"]  # bsa.compare is the function

ALLOC, ZALLOC, REALLOC, FREE = TraceOp
TRACE = random_trace(1500, seed=1)
THREADS = concurrent.futures.ThreadPoolExecutor


def compare(configurations, trace=TRACE, **options):
    """In threads, which start at once."""
    with THREADS(2) as executor:
        return bsa.compare(trace, configurations, executor=executor, **options)


# ---- Placement ----

SIZES = st.sampled_from([0, 1, 8, 24, 25, 40, 100, 500, 504, 505, 513, 600, 1000, 5000])
ALIGNMENTS = st.sampled_from([0, 0, 0, 8, 16, 32, 64, 4096])


@st.composite
def traces(draw):
    """Few blocks, allocated, resized and freed in any order."""
    alive, rows = set(), []
    for block, size, align, frees in draw(
        st.lists(st.tuples(st.integers(0, 7), SIZES, ALIGNMENTS, st.booleans()), max_size=60)
    ):
        if block not in alive:
            alive.add(block)
            rows.append((ALLOC, block, size, align, 0))
        elif frees:
            alive.remove(block)
            rows.append((FREE, block, 0, 0, 0))
        else:
            rows.append((REALLOC, block, size, 0, 0))
    return Trace.from_events(rows)


@pytest.mark.parametrize("policy", REFERENCES)
@given(trace=traces(), header=st.sampled_from([0, 8, 16, 32]))
def test_each_policy_places_as_the_plain_model_does(policy, trace, header):
    assert reference_extent(trace, policy, header=header) == place(trace, policy, header)


@pytest.mark.parametrize("policy", REFERENCES)
@pytest.mark.parametrize("seed", range(3))
def test_so_it_does_with_many_holes_of_all_sizes(policy, seed):
    trace = random_trace(700, seed)
    assert reference_extent(trace, policy) == place(trace, policy, 8)


def test_what_each_policy_takes_is_the_hole_it_is_named_for():
    """Holes of 512, 96 and 128 bytes in this order; then 96 bytes, and 480 more."""
    begin = [504, 8, 88, 8, 120, 8]
    events = [(ALLOC, block, size, 0, 0) for block, size in enumerate(begin)]
    events += [(FREE, block, 0, 0, 0) for block in (0, 2, 4)]
    events += [(ALLOC, 0, 88, 0, 0), (ALLOC, 2, 472, 0, 0)]
    trace = Trace.from_events(events)
    before = 512 + 96 + 128 + 3 * 32
    assert reference_extent(trace, "first fit") == before + 480
    assert reference_extent(trace, "best fit") == reference_extent(trace, "tlsf") == before


def test_tlsf_passes_over_a_hole_that_its_lists_cannot_tell_to_be_large_enough():
    events = [(ALLOC, 0, 1016, 0, 0), (ALLOC, 1, 8, 0, 0), (FREE, 0, 0, 0, 0)]
    trace = Trace.from_events([*events, (ALLOC, 0, 1000, 0, 0)])
    assert reference_extent(trace, "tlsf") == reference_extent(trace, "best fit") == 1024 + 32
    events[0] = (ALLOC, 0, 1032, 0, 0)  # 1040 bytes, in the list of 1024 to 1055
    trace = Trace.from_events([*events, (ALLOC, 0, 1032, 0, 0)])
    assert reference_extent(trace, "best fit") == 1040 + 32
    assert reference_extent(trace, "tlsf") == 1040 + 32 + 1040


@pytest.mark.parametrize("header, extent", [(0, 112), (8, 112), (16, 128), (32, 144)])
def test_the_header_is_part_of_a_block(header, extent):
    assert (
        reference_extent(Trace.from_events([(ALLOC, 0, 100, 0, 0)]), "tlsf", header=header)
        == extent
    )


def test_a_trace_without_events_reaches_nowhere():
    assert [reference_extent(Trace.from_events([]), policy) for policy in REFERENCES] == [0, 0, 0]


@pytest.mark.parametrize("size", [2**62, 2**64 - 1])
def test_a_block_that_no_address_space_holds_is_an_out_of_memory_error(size):
    with pytest.raises(bsa.OutOfMemoryError, match="event 0"):
        reference_extent(Trace.from_events([(ALLOC, 0, size, 0, 0)]), "best fit")


def test_a_model_whose_heap_has_become_too_large_says_so():
    trace = Trace.from_events([(ALLOC, block, 2**61, 0, 0) for block in range(7)])
    with pytest.raises(bsa.OutOfMemoryError, match="event 2"):
        reference_extent(trace, "first fit")


@pytest.mark.parametrize(
    "arguments, options, error",
    [
        (([], "tlsf"), {}, TypeError),
        ((TRACE, "worst fit"), {}, bsa.InvalidParamError),
        ((TRACE, "tlsf"), {"header": 33}, bsa.InvalidParamError),
        ((TRACE, "tlsf"), {"header": -1}, bsa.InvalidParamError),
        ((TRACE, "tlsf"), {"header": 1.5}, TypeError),
    ],
)
def test_what_is_no_reference_is_refused(arguments, options, error):
    with pytest.raises(error):
        reference_extent(*arguments, **options)


@pytest.mark.parametrize("op", [0, 5, REALLOC, FREE])
def test_an_impossible_event_is_named(op):
    trace = Trace.from_events([(ALLOC, 0, 8, 0, 0), (FREE, 0, 0, 0, 0)])
    ops = bytes([ALLOC, FREE, op])
    rest = [
        memoryview(bytes(column) + bytes(column.itemsize)).cast(column.format)
        for column in columns(trace)[1:]
    ]
    with pytest.raises(bsa.InvalidParamError, match="event 2"):
        _core._place(memoryview(ops), *rest, 0, 8, None)


def test_progress_ends_a_placement_when_it_raises():
    def stop(events):
        raise KeyboardInterrupt(events)

    with pytest.raises(KeyboardInterrupt, match=str(len(TRACE))):
        reference_extent(TRACE, "first fit", progress=stop)


# ---- Rows ----


@pytest.mark.parametrize("page_size", [1024, 4096])
def test_without_a_size_a_row_is_of_the_smallest_heap(page_size):
    row = compare({"a": {"page_size": page_size}}, references=())["a"]
    size = bsa.smallest_heap(TRACE, page_size=page_size, cpus=TRACE.threads)
    assert (row.metrics["size"], row.error) == (size, "")
    assert row.metrics["times_peak"] == size / TRACE.peak[1]
    assert row.timeline.page_size == page_size


def test_a_row_is_what_a_replay_in_such_a_heap_gives():
    row = compare({"a": {"size": 8 << 20, "cpus": 2}}, samples=50, references=())["a"]
    with bsa.Allocator(8 << 20, cpus=2) as heap:
        timeline = bsa.replay(TRACE, heap, samples=50)
    assert row.timeline == timeline
    at = timeline.allocated.tolist().index(max(timeline.allocated))
    for name in ("class_rounding", "page_rounding", "slab_slack", "free", "largest_free"):
        assert row.metrics[name] == getattr(timeline, name)[at]
    for name in ("huge_share", "sum_of_squares_index"):
        assert row.metrics[name] == getattr(timeline, name)[at]
    assert row.metrics["mean_footprint"] == timeline.mean_footprint
    assert row.metrics["peak_footprint"] == timeline.peak_footprint
    assert row.metrics["peak_allocated"] == timeline.peak_allocated[-1]
    assert list(row.metrics) == list(COLUMNS)


def test_references_are_rows_too():
    comparison = compare({"4k": {}}, header=16)
    assert list(comparison) == ["4k", *REFERENCES]
    for name in REFERENCES:
        extent = reference_extent(TRACE, name, header=16)
        assert comparison[name].metrics == {"size": extent, "times_peak": extent / TRACE.peak[1]}


WRONG = {
    "too small": ({"size": 1 << 20}, "^event .* do not fit"),
    "far too small": ({"size": 4096}, "."),
    "page size": ({"page_size": 3000}, "power of two"),
    "no size": ({"size": "64M"}, "."),
    "huge": ({"size": 2**62}, "cannot map"),
}


def test_what_does_not_fit_or_has_an_impossible_value_is_a_row_that_says_why():
    asked = {name: options for name, (options, _) in WRONG.items()} | {"good": {}}
    comparison = compare(asked)
    assert list(comparison) == [*asked, *REFERENCES]
    assert comparison["good"].metrics and not comparison["good"].error
    for name, (options, text) in WRONG.items():
        row = comparison[name]
        assert (row.options, row.metrics, row.timeline) == (options, {}, None)
        pytest.raises(ValueError, _raise, row.error).match(text)


def _raise(text):
    raise ValueError(text)


class Untouched(concurrent.futures.Executor):
    def submit(self, function, /, *arguments):
        raise AssertionError("nothing is to be run")


@pytest.mark.parametrize(
    "configurations, options, error, text",
    [
        ({}, {}, bsa.InvalidParamError, "there is no configuration"),
        ({"4k": None}, {}, TypeError, "configuration '4k' is a NoneType, not a dict"),
        ({"4k": 4096}, {}, TypeError, "configuration '4k' is a int, not a dict"),
        (
            {"4k": {}, "16k": {"pagesize": 16384}},
            {},
            TypeError,
            "^configuration '16k' has no option 'pagesize': did you mean 'page_size'\\?$",
        ),
        ({"a": {"cpu": 2}}, {}, TypeError, "did you mean 'cpus'"),
        ({"a": {"buffer": 2}}, {}, TypeError, "'buffer': there are size, page_size, cpus, phys, "),
        ({"a": {3: 2}}, {}, TypeError, "no option 3: there are"),
        ({"a": {}}, {"references": ["tslf"]}, bsa.InvalidParamError, "did you mean 'tlsf'"),
        ({"a": {}}, {"references": "tlsf"}, bsa.InvalidParamError, "no reference is 't'"),
        ({"a": {}}, {"header": 33}, bsa.InvalidParamError, "header"),
    ],
)
def test_what_can_be_no_row_is_refused_before_anything_is_run(configurations, options, error, text):
    with pytest.raises(error, match=text):
        bsa.compare(TRACE, configurations, executor=Untouched(), **options)


def test_the_options_of_a_configuration_are_those_of_an_allocator():
    parameters = inspect.signature(bsa.Allocator).parameters
    assert ["buffer", *OPTIONS[1:]] == list(parameters) and OPTIONS[0] == "size"


def test_an_executor_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="executor is a concurrent.futures.Executor, not int"):
        bsa.compare(TRACE, {"4k": {}}, executor=4)


def test_a_trace_too_large_for_any_heap_leaves_only_reasons():
    huge = Trace.from_events([(ALLOC, 0, 2**63, 0, 0)])
    comparison = compare({"4k": {}}, trace=huge)
    assert all("event 0" in row.error for row in comparison.rows)


def test_a_trace_in_which_nothing_is_live_has_no_ratios():
    comparison = compare({"4k": {}}, trace=Trace.from_events([]))
    assert math.isnan(comparison["4k"].metrics["times_peak"])
    assert not any(row.error for row in comparison.rows)
    assert "-" in comparison.table()


def test_a_configuration_cannot_be_named_like_a_reference():
    with pytest.raises(bsa.InvalidParamError):
        compare({"tlsf": {}})
    assert list(compare({"tlsf": {}}, references=("best fit",))) == ["tlsf", "best fit"]


@pytest.mark.parametrize("arguments", [([], {}), (TRACE, ["4k"]), (TRACE, "4k")])
def test_only_a_trace_can_be_compared_in_a_dict_of_heaps(arguments):
    with pytest.raises(TypeError, match="list|str"):
        bsa.compare(*arguments)


# ---- The Comparison ----


def test_a_comparison_is_a_mapping_of_rows_with_columns():
    comparison = compare({"a": {}, "b": {"size": 1}})
    assert len(comparison) == 5 and "a" in comparison and "c" not in comparison
    assert comparison.rows == tuple(comparison.values())
    assert comparison.column("size")[:2] == (comparison["a"].metrics["size"], None)
    with pytest.raises(KeyError):
        comparison.column("colour")
    assert (comparison.events, comparison.trace_peak) == (len(TRACE), TRACE.peak[1])
    assert repr(comparison) == "<bsa.Comparison of 5 rows, 1 without a result>"


def test_the_table_has_a_line_for_each_row_in_columns_of_one_width():
    comparison = compare({"4k": {}, "four megabytes": {"size": 4 << 20}, "bad": {"size": "x"}})
    head, *lines = str(comparison).splitlines()
    assert [line.split("  ")[0] for line in lines] == list(comparison)
    assert (
        head.split()
        == (
            "heap times peak pages in use size classes powers of two unused in slabs largest hole "
            "mean footprint peak footprint"
        ).split()
    )
    assert len(lines[0]) == len(lines[1]) == len(head)
    assert lines[1].split()[2:4] == ["4", "MiB"]
    assert lines[2].endswith(comparison["bad"].error)


def test_a_configuration_may_have_any_name():
    comparison = compare({4096: {}, 16384: {"page_size": 16384}}, references=())
    assert comparison[16384].timeline.page_size == 16384
    assert comparison.table().splitlines()[2].startswith("16384  ")


def test_a_comparison_comes_back_from_pickle():
    comparison = compare({"a": {}, "b": {"size": 1}})
    again = pickle.loads(pickle.dumps(comparison))
    assert again == comparison and again.table() == comparison.table()


# ---- Executors ----


CONFIGURATIONS = {"4k": {}, "1k": {"page_size": 1024}, "too small": {"size": 1 << 20}}

# Without `if __name__ == "__main__":`, which nobody writes who has not been told to.
SCRIPT = """
import pickle, sys, threading
import bsa
ended = threading.Event()
for _ in range(int(sys.argv[1])):
    threading.Thread(target=ended.wait).start()
comparison = bsa.compare(*pickle.load(sys.stdin.buffer))
ended.set()
pickle.dump((comparison, "concurrent.futures.process" in sys.modules), sys.stdout.buffer)
"""


@pytest.mark.parametrize("threads", [0, 1])
def test_a_script_needs_no_guard_and_is_forked_only_without_threads(threads, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-W", "error", path, str(threads)],
        input=pickle.dumps((TRACE, CONFIGURATIONS)),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    comparison, is_forked = pickle.loads(done.stdout)
    assert comparison == compare(CONFIGURATIONS)
    assert is_forked == (threads == 0)


# Ctrl-C on a terminal reaches every process of the group, whatever it is about just then.
INTERRUPTED = """
import multiprocessing, os, signal, time
import bsa
from bsa.compare import _Parcel, _processes

class Endless:
    name, options = "endless", {}

    def run(self, trace, progress):
        os.write(begins[1], b"1")
        while True:
            time.sleep(1)

class Short(Endless):
    def run(self, trace, progress):
        return os.getpid()

def interrupt():
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGINT)

begins = os.pipe()
with _processes(1, _Parcel(bsa.Trace.from_events([]))) as submit:
    first = submit(Short()).result()
    interrupt()
    print("waits:", submit(Short()).result() == first, flush=True)
    endless = submit(Endless())
    waiting = submit(Short())
    os.read(begins[0], 1)
    interrupt()
    print("ends:", type(endless.exception()).__name__, type(waiting.exception()).__name__)
"""


def test_ctrl_c_ends_what_a_forked_process_runs_but_none_that_waits():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert done.stderr == ""
    ended = "ends: BrokenProcessPool BrokenProcessPool"
    assert done.stdout.splitlines() == ["waits: True", ended]


def test_threads_of_our_own_give_the_same_rows(monkeypatch):
    monkeypatch.setattr(comparing, "_can_fork", lambda: False)
    assert bsa.compare(TRACE, CONFIGURATIONS) == compare(CONFIGURATIONS)


class Patient:
    """A task that takes seconds, unless it is ended."""

    name, options = "patient", {}

    def run(self, trace, progress):
        for _ in range(1000):
            progress(0)
            time.sleep(0.005)
        return comparing.Row(self.name, self.options)


def test_threads_of_our_own_end_when_an_exception_does():
    parcel = comparing._Parcel(TRACE)
    with pytest.raises(KeyboardInterrupt), comparing._threads(1, parcel) as submit:
        future = submit(Patient())
        raise KeyboardInterrupt
    assert future.cancelled() or future.result().error == "CancelledError"


@pytest.mark.parametrize(
    "task",
    [
        comparing._Heap("smallest", {}, 10),
        comparing._Heap("sized", {"size": 8 << 20}, 10),
        comparing._Reference("tlsf", {"header": 8}),
    ],
    ids=lambda task: task.name,
)
def test_every_task_can_be_ended(task):
    def stop(*done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task.run(TRACE, stop)


def test_processes_that_are_not_forked_do_and_lose_what_cannot_be_sent():
    context = multiprocessing.get_context("spawn")
    asked = {"4k": {}, "asks": {"on_oom": lambda heap, size: False}}
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        comparison = bsa.compare(TRACE, asked, executor=executor, references=())
    assert comparison["4k"] == compare({"4k": {}})["4k"]
    assert "lambda" in comparison["asks"].error


def test_threads_give_the_same_rows_and_stay_open():
    with THREADS(3) as executor:
        comparison = bsa.compare(TRACE, {"4k": {}, "1k": {"page_size": 1024}}, executor=executor)
        assert executor.submit(len, "abc").result() == 3
    assert comparison == bsa.compare(TRACE, {"4k": {}, "1k": {"page_size": 1024}})


class Pickling(concurrent.futures.Executor):
    """Runs at once, after sending the work there and the result back; counts what it sends."""

    def __init__(self):
        self.sent = []

    def submit(self, function, /, *arguments):
        self.sent.append(pickle.dumps((function, arguments)))
        future = concurrent.futures.Future()
        function, arguments = pickle.loads(self.sent[-1])
        future.set_result(pickle.loads(pickle.dumps(function(*arguments))))
        return future


def test_a_trace_is_sent_compressed():
    executor = Pickling()
    comparison = bsa.compare(TRACE, {"4k": {}}, executor=executor)
    assert comparison == compare({"4k": {}})
    assert max(map(len, executor.sent)) < len(pickle.dumps(TRACE)) / 2


class Dying(concurrent.futures.Executor):
    """Whose second task is refused, and whose first never comes back."""

    def submit(self, function, /, *arguments):
        if hasattr(self, "future"):
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.future = concurrent.futures.Future()
        self.future.set_exception(concurrent.futures.BrokenExecutor("a process died"))
        return self.future


def test_what_an_executor_loses_is_told():
    comparison = bsa.compare(TRACE, {"a": {}, "b": {}}, executor=Dying(), references=())
    assert [row.error for row in comparison.rows] == [
        "a process died",
        "cannot schedule new futures after shutdown",
    ]


class Slow(concurrent.futures.Executor):
    """Which does its first task only."""

    def __init__(self):
        self.futures = []

    def submit(self, function, /, *arguments):
        self.futures.append(concurrent.futures.Future())
        if len(self.futures) == 1:
            self.futures[0].set_result(function(*arguments))
        return self.futures[-1]


def test_what_waits_in_an_executor_is_cancelled_by_ctrl_c(monkeypatch):
    def interrupt(done):
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.Progress, "step", lambda self, label, total: interrupt)
    executor = Slow()
    with pytest.raises(KeyboardInterrupt):
        bsa.compare(random_trace(50, 0), {"a": {}, "b": {}}, executor=executor)
    assert [future.cancelled() for future in executor.futures] == [False] + 4 * [True]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_shown_on_a_terminal(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(progress, "_PATIENCE", 0)
    monkeypatch.setattr(progress, "_INTERVAL", 0)
    compare({"a": {}, "b": {}}, references=())
    assert "compare: 50 %" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_nothing_is_shown_elsewhere(capsys):
    compare({"a": {}})
    assert capsys.readouterr() == ("", "")


ODD_NAMES = [4096, ("a", 1), b"x", None, 0.5, "\ud800\x1b<script>", "x" * 50_000]


@pytest.mark.parametrize("name", ODD_NAMES, ids=range(len(ODD_NAMES)))
def test_a_row_may_be_named_anything(name):
    heaps = {name: {"size": 1 << 25}, "none": {"limit": "x" * 10_000}}
    found = bsa.compare(TRACE, heaps, references=())
    html = found._repr_html_()
    assert found[name].metrics and len(html) < 50_000 and "<script" not in html
    html.encode()
    assert len(found.table().splitlines()) == 3


def test_two_references_of_one_name_are_refused():
    with pytest.raises(bsa.InvalidParamError, match="named twice"):
        bsa.compare(TRACE, {"a": {}}, references=("tlsf", "tlsf"))
