"""Traces: their columns, what they refuse, and their files, whole and damaged."""

import json
import os
import pathlib
import pickle
import stat
import struct
import zipfile
import zlib
from array import array

import pytest

import bsa
from bsa import trace_file
from bsa.info import describe, size_histogram
from bsa.trace import TraceError, TraceOp

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, strategies as st  # noqa: E402

ALLOC, ZALLOC, REALLOC, FREE = TraceOp

# Two threads, every operation, an id used again, one block that survives.
EVENTS = [
    (ALLOC, 0, 100, 0, 0),
    (ZALLOC, 1, 40, 0, 0),
    (REALLOC, 0, 3000, 0, 1),
    (FREE, 1, 0, 0, 1),
    (ALLOC, 1, 8, 4096, 0),
    (FREE, 0, 0, 0, 0),
]

TEXT = b"""\
186: malloc 0xb6027400 100
186: calloc 0xb6027800 4 10
201: realloc 0xb6028000 0xb6027400 3000
201: free 0xb6027800
186: memalign 0xb6029000 4096 8
186: thread_done 0x0
186: free 0xb6028000
"""


@pytest.fixture
def trace():
    return bsa.Trace.from_events(EVENTS, meta={"command": ["a", "b"], "torn": 0})


@pytest.fixture
def load(tmp_path):
    """Trace.load of a file with the given bytes."""

    def load_bytes(data):
        path = tmp_path / "some trace"
        path.write_bytes(data)
        return bsa.Trace.load(path)

    return load_bytes


def events_of(trace):
    return [tuple(event) for event in trace]


# ---- The type ----


def test_columns_are_read_only_buffers_of_plain_numbers(trace):
    columns = [trace.op, trace.id, trace.size, trace.align, trace.thread]
    assert [column.format for column in columns] == ["B", "I", "Q", "I", "I"]
    assert list(zip(*columns)) == EVENTS
    assert all(column.readonly for column in columns)


def test_a_trace_knows_its_totals(trace):
    assert len(trace) == 6
    assert trace.ids == 2
    assert trace.threads == 2
    assert trace.peak == (2, 3040)


def test_an_empty_trace_is_a_trace():
    trace = bsa.Trace.from_events([])
    assert (len(trace), trace.ids, trace.threads, trace.peak) == (0, 0, 0, (0, 0))
    assert list(trace.size) == []


def test_columns_make_a_trace_again(trace):
    again = bsa.Trace(trace.op, trace.id, trace.size, trace.align, trace.thread)
    assert again == trace
    assert bsa.Trace(*zip(*EVENTS)) == trace


def test_columns_are_copied(trace):
    ids = array("I", trace.id)
    copy = bsa.Trace(trace.op, ids, trace.size, trace.align, trace.thread)
    ids[0] = 9
    assert copy == trace


def test_columns_of_the_wrong_width_are_refused(trace):
    with pytest.raises(TypeError, match="id: expected"):
        bsa.Trace(trace.op, trace.size, trace.size, trace.align, trace.thread)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(TraceError, match="differ in length"):
        bsa.Trace([1], [0, 1], [8], [0], [0])


def test_indexing_gives_events(trace):
    assert trace[2] == (REALLOC, 0, 3000, 0, 1)
    assert trace[-1].op == FREE
    with pytest.raises(IndexError):
        trace[6]


def test_equality_is_that_of_the_events(trace):
    assert trace == bsa.Trace.from_events(EVENTS)
    assert trace != bsa.Trace.from_events(EVENTS[:-1])
    assert trace != EVENTS


def test_traces_pickle(trace):
    again = pickle.loads(pickle.dumps(trace))
    assert again == trace
    assert again.meta == trace.meta


def test_repr_tells_the_totals(trace):
    assert repr(trace) == "<bsa.Trace of 6 events: 2 ids, 2 threads, peak 3,040 bytes>"


def test_trace_errors_are_value_errors_of_bsa():
    assert issubclass(TraceError, ValueError)
    assert issubclass(TraceError, bsa.AllocError)


@pytest.mark.parametrize(
    "events, message",
    [
        ([(0, 0, 8, 0, 0)], "event 0: unknown operation 0"),
        ([(5, 0, 8, 0, 0)], "event 0: unknown operation 5"),
        ([(ALLOC, 0, 8, 3, 0)], "event 0: alignment 3 is no power of two"),
        ([(ALLOC, 65536, 8, 0, 0)], "event 0: id 65536 is not below 65536"),
        ([(ALLOC, 2**32 - 1, 8, 0, 0)], "event 0: id 4294967295"),
        ([(ALLOC, 0, 8, 0, 65536)], "event 0: thread 65536"),
        ([EVENTS[0], (ZALLOC, 0, 8, 0, 0)], "event 1: allocates id 0, which is live"),
        ([EVENTS[0], (FREE, 1, 0, 0, 0)], "event 1: frees id 1, which is not live"),
        ([(REALLOC, 0, 8, 0, 0)], "event 0: reallocates id 0, which is not live"),
        ([EVENTS[0], (FREE, 0, 0, 0, 0)] + [(FREE, 0, 0, 0, 0)], "event 2: frees id 0"),
        ([EVENTS[0], (ALLOC, 1, 2**64 - 1, 0, 0)], "event 1: more than 2^64 bytes"),
        ([(ALLOC, 0, 2**64, 0, 0)], "event 0: "),
        ([(ALLOC, -1, 8, 0, 0)], "event 0: "),
        ([(ALLOC, 0, 8, 0)], "event 0: "),
        ([EVENTS[0], (FREE, 0, 0, 0, 0, 0)], "event 1: "),
    ],
)
def test_an_impossible_history_is_refused_with_its_event(events, message):
    with pytest.raises(TraceError) as caught:
        bsa.Trace.from_events(events)
    assert str(caught.value).startswith(message)


# ---- Slices ----


def test_a_prefix_is_a_valid_trace_of_the_same_events(trace):
    for stop in range(len(EVENTS) + 1):
        assert events_of(trace[:stop]) == EVENTS[:stop]


def test_a_slice_drops_frees_of_older_blocks_and_numbers_ids_anew(trace):
    assert events_of(trace[3:]) == [(ALLOC, 0, 8, 4096, 0)]


def test_in_a_slice_reallocs_of_older_blocks_are_allocations(trace):
    assert events_of(trace[2:4]) == [(ALLOC, 0, 3000, 0, 0)]


def test_slices_out_of_range_are_empty_and_steps_are_refused(trace):
    assert len(trace[4:2]) == len(trace[10:]) == 0
    with pytest.raises(ValueError, match="steps of 1"):
        trace[::2]


def test_a_short_prefix_of_a_trace_with_large_ids_is_valid():
    last = 70_000
    events = [(ALLOC, last, 8, 0, 0)] + [(ALLOC, i, 8, 0, 0) for i in range(last)]
    assert events_of(bsa.Trace.from_events(events)[:2]) == [
        (ALLOC, 0, 8, 0, 0),
        (ALLOC, 1, 8, 0, 0),
    ]


# ---- Saved traces ----


def test_a_saved_trace_loads_as_it_was(trace, tmp_path):
    path = tmp_path / "t.bsa"
    trace.save(path)
    loaded = bsa.Trace.load(str(path))
    assert loaded == trace
    assert loaded.meta == trace.meta


def test_saving_replaces_a_file_and_leaves_nothing_else(trace, tmp_path):
    path = tmp_path / "t.bsa"
    path.write_text("old")
    trace.save(path)
    assert bsa.Trace.load(path) == trace
    assert os.listdir(tmp_path) == ["t.bsa"]


def test_saving_through_a_symlink_keeps_the_link(trace, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    trace.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert bsa.Trace.load(tmp_path / "target") == trace


def test_saving_to_a_device_does_not_replace_it(trace):
    trace.save("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_saving_over_a_file_leaves_its_permissions(trace, tmp_path):
    path = tmp_path / "private"
    path.touch(mode=0o600)
    trace.save(path)
    assert bsa.Trace.load(path) == trace and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_saving_into_a_missing_folder_is_an_os_error(trace, tmp_path):
    with pytest.raises(FileNotFoundError, match="t.bsa: there is no folder .*missing$"):
        trace.save(tmp_path / "missing" / "t.bsa")


def test_a_trace_truncated_anywhere_is_refused_with_its_name_and_place(trace, load):
    data = trace_file.encode(trace._columns, trace.meta)
    for length in range(len(data)):
        with pytest.raises(TraceError, match="some trace: offset [0-9]+: "):
            load(data[:length])


def test_a_trace_with_any_byte_flipped_is_refused(trace, load):
    data = trace_file.encode(trace._columns, trace.meta)
    for place in range(len(data)):
        for bits in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[place] ^= bits
            with pytest.raises(TraceError):
                load(damaged)


def test_bytes_after_the_end_of_a_trace_are_refused(trace, load):
    with pytest.raises(TraceError, match="expected the end of the file"):
        load(trace_file.encode(trace._columns, trace.meta) + b"\0")


def test_a_newer_version_is_refused_by_name(trace, load):
    data = bytearray(trace_file.encode(trace._columns, trace.meta))
    data[8] = 2
    with pytest.raises(TraceError, match="offset 8: trace file of version 2, expected 1"):
        load(data)


def forged(header, body=b""):
    """A trace file with right checksums around any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    prologue = struct.pack("<8sIII", trace_file.MAGIC, 1, len(text), zlib.crc32(text))
    return prologue + text + body


def forged_columns(events, parts):
    entries = [
        [name, len(part), zlib.crc32(part)]
        for name, part in zip(("op", "id", "size", "align", "thread"), parts)
    ]
    return forged({"events": events, "columns": entries, "meta": {}}, b"".join(parts))


EMPTY_COLUMNS = [[name, 0, 0] for name in ("op", "id", "size", "align", "thread")]


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[" * 100_000,
        b"\xff",
        b"9" * 5000,
        [],
        {"events": -1, "columns": EMPTY_COLUMNS, "meta": {}},
        {"events": 0.5, "columns": EMPTY_COLUMNS, "meta": {}},
        {"events": 0, "columns": EMPTY_COLUMNS, "meta": []},
        {"events": 0, "columns": EMPTY_COLUMNS[:-1], "meta": {}},
        {"events": 0, "columns": EMPTY_COLUMNS * 2, "meta": {}},
        {"events": 0, "columns": EMPTY_COLUMNS[::-1], "meta": {}},
        {"events": 0, "columns": [["op", -1, 0]] + EMPTY_COLUMNS[1:], "meta": {}},
        {"events": 0, "columns": EMPTY_COLUMNS, "meta": {}},
        {"events": 10**30, "columns": EMPTY_COLUMNS, "meta": {}},
    ],
    ids=repr,
)
def test_a_forged_header_is_refused(load, header):
    with pytest.raises(TraceError):
        load(forged(header))


def test_a_forged_number_of_events_allocates_nothing_and_is_refused(load):
    parts = [zlib.compress(bytes(width)) for width in (1, 4, 8, 4, 4)]
    for events in (0, 2, 2**40, 2**63, 2**64, 10**30):
        with pytest.raises(TraceError, match="does not hold"):
            load(forged_columns(events, parts))


def test_a_forged_history_is_refused_with_its_event(load):
    parts = [zlib.compress(bytes([4]))] + [zlib.compress(bytes(width)) for width in (4, 8, 4, 4)]
    with pytest.raises(TraceError, match="event 0: frees id 0, which is not live"):
        load(forged_columns(1, parts))


def test_an_empty_file_is_told_to_be_empty(load):
    with pytest.raises(TraceError, match="some trace: offset 0: the file is empty"):
        load(b"")


@pytest.mark.parametrize("data", [b"x", b"\0" * 100, b"12", b"%PDF-1.4", b"186 malloc"])
def test_what_is_no_trace_at_all_is_refused(load, data):
    with pytest.raises(TraceError, match="offset 0: expected a trace"):
        load(data)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        bsa.Trace.load(tmp_path / "missing")


@st.composite
def histories(draw):
    """Events that are possible, with ids and threads in any order."""
    live, events = set(), []
    for _ in range(draw(st.integers(0, 60))):
        thread = draw(st.integers(0, 65535))
        align = draw(st.sampled_from([0, 1, 16, 4096, 2**31]))
        size = draw(st.one_of(st.integers(0, 4096), st.integers(0, 2**57)))
        op = draw(st.sampled_from(TraceOp)) if live else ALLOC
        if op in (ALLOC, ZALLOC):
            id = draw(st.integers(0, 65535).filter(lambda id: id not in live))
            live.add(id)
        else:
            id = draw(st.sampled_from(sorted(live)))
            if op == FREE:
                live.remove(id)
        events.append((op, id, size, align, thread))
    return events


@given(histories())
def test_any_history_survives_saving_pickling_and_rebuilding(tmp_path_factory, events):
    trace = bsa.Trace.from_events(events, meta={"events": len(events)})
    path = tmp_path_factory.getbasetemp() / "round trip"
    trace.save(path)
    loaded = bsa.Trace.load(path)
    assert events_of(loaded) == events
    assert loaded.meta == {"events": len(events)}
    assert pickle.loads(pickle.dumps(loaded)) == trace


@given(histories(), st.data())
def test_any_slice_of_a_history_is_a_valid_history(events, data):
    trace = bsa.Trace.from_events(events)
    start = data.draw(st.integers(0, len(events)))
    stop = data.draw(st.integers(start, len(events)))
    part = trace[start:stop]
    assert bsa.Trace(part.op, part.id, part.size, part.align, part.thread) == part
    born = [event for event in events[start:stop] if event[0] in (ALLOC, ZALLOC)]
    assert len(born) <= len(part) <= stop - start


@given(histories())
def test_the_peak_is_what_a_simple_model_says(events):
    live, peak, at = {}, 0, 0
    for index, (op, id, size, _, _) in enumerate(events):
        live[id] = 0 if op == FREE else size
        if sum(live.values()) > peak:
            peak, at = sum(live.values()), index
    assert bsa.Trace.from_events(events).peak == (at, peak)


# ---- The text format of memory_replay ----


def test_a_memory_replay_text_loads(load, trace):
    loaded = load(TEXT)
    assert loaded == trace
    assert loaded.meta["source"] == "memory_replay"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_one_text_loads(tmp_path, trace, method):
    with zipfile.ZipFile(tmp_path / "t.zip", "w", method) as archive:
        archive.writestr("folder/", b"")
        archive.writestr("folder/t.txt", TEXT)
    assert bsa.Trace.load(tmp_path / "t.zip") == trace


def test_a_zip_of_two_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a", TEXT)
        archive.writestr("b", TEXT)
    with pytest.raises(TraceError, match="zip archive of 2 files"):
        bsa.Trace.load(tmp_path / "t.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip_is_refused_or_still_the_same_trace(tmp_path, load, trace, method):
    with zipfile.ZipFile(tmp_path / "t.zip", "w", method) as archive:
        archive.writestr("t.txt", TEXT)
    data = (tmp_path / "t.zip").read_bytes()
    damaged = [data[:length] for length in range(len(data))]
    for place in range(len(data)):
        for bits in (0x01, 0xFF):
            damaged.append(data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :])
    for data in damaged:
        try:
            assert load(data) == trace
        except TraceError:
            pass


def test_times_at_the_end_of_lines_are_accepted(load):
    text = b"1: malloc 0x10 8 100 200\n1: free 0x10 300 400\n1: thread_done 0x0 500\n"
    assert events_of(load(text)) == [(ALLOC, 0, 8, 0, 0), (FREE, 0, 0, 0, 0)]


def test_all_operations_may_have_times_and_bytes_that_were_in_memory(load, trace):
    """As Android writes them today: a start, an end, and at the end of a block what it had."""
    lines = [line + b" 170 180" for line in TEXT.splitlines()]
    lines[5] = b"186: thread_done 0x0 190"
    for freeing in (2, 3, 6):
        lines[freeing] += b" 64"
    assert load(b"\n".join(lines) + b"\n") == trace


def test_lines_may_end_as_on_windows(load, trace):
    assert load(TEXT.replace(b"\n", b"\r\n")) == trace


def test_requests_that_failed_are_left_out_and_counted(load):
    text = b"1: malloc 0x0 8\n1: free 0x0\n1: calloc 0x0 2 4\n1: malloc 0x10 8\n"
    text += b"1: realloc 0x0 0x10 99\n1: memalign 0x0 16 8\n1: realloc 0x0 0x0 5\n"
    trace = load(text)
    assert events_of(trace) == [(ALLOC, 0, 8, 0, 0)]
    assert trace.meta["skipped"] == 6


def test_realloc_of_nothing_allocates_and_to_nothing_frees(load):
    trace = load(b"1: realloc 0x10 0x0 8\n1: realloc 0x0 0x10 0\n")
    assert events_of(trace) == [(ALLOC, 0, 8, 0, 0), (FREE, 0, 0, 0, 0)]


def test_blocks_older_than_the_text_are_counted(load):
    trace = load(b"1: free 0x10\n1: realloc 0x30 0x20 8\n1: realloc 0x0 0x40 0\n")
    assert events_of(trace) == [(ALLOC, 0, 8, 0, 0)]
    assert (trace.meta["unknown_frees"], trace.meta["unknown_reallocs"]) == (2, 1)


def test_an_address_allocated_again_was_freed_unseen(load):
    trace = load(b"1: malloc 0x10 8\n1: malloc 0x10 9\n")
    assert events_of(trace) == [(ALLOC, 0, 8, 0, 0), (FREE, 0, 0, 0, 0), (ALLOC, 0, 9, 0, 0)]
    assert trace.meta["missed_frees"] == 1


def test_the_id_freed_last_is_used_first(load):
    text = "".join(f"1: malloc 0x{i}0 8\n" for i in range(1, 4))
    text += "1: free 0x10\n1: free 0x20\n1: malloc 0x50 8\n1: malloc 0x60 8\n1: malloc 0x70 8\n"
    assert list(load(text.encode()).id) == [0, 1, 2, 0, 1, 1, 0, 3]


def test_an_alignment_that_is_no_power_of_two_is_rounded_up(load):
    assert load(b"1: memalign 0x10 24 8\n").align[0] == 32


@pytest.mark.parametrize(
    "line, message",
    [
        ("1:", "expected malloc, calloc"),
        ("1: ", "expected malloc, calloc, realloc, memalign, free or thread_done, found the end"),
        ("1 malloc 0x10 8", "expected a thread id and a colon, found '1 malloc 0x10 8'"),
        ("", "expected a thread id and a colon, found the end of the line"),
        ("x: malloc 0x10 8", "expected a thread id"),
        ("-1: malloc 0x10 8", "expected a thread id"),
        ("4294967296: malloc 0x10 8", "expected a thread id"),
        ("1: mallocs 0x10 8", "expected malloc, calloc"),
        ("1: malloc", "expected an address, found the end"),
        ("1: malloc 0x", "expected an address, found '0x'"),
        ("1: malloc zz 8", "expected an address, found 'zz 8'"),
        ("1: malloc 0x1ffffffffffffffff 8", "expected an address"),
        ("1: malloc 0x10", "expected a size, found the end"),
        ("1: malloc 0x10 -8", "expected a size, found '-8'"),
        ("1: malloc 0x10 8k", "expected a size, found '8k'"),
        ("1: malloc 0x10 18446744073709551616", "expected a size"),
        ("1: calloc 0x10 8", "expected a size, found the end"),
        ("1: calloc 0x10 4294967296 4294967296", "expected a count times a size below 2^64"),
        ("1: realloc 0x10 8", "expected a size, found the end"),
        ("1: memalign 0x10 4294967296 8", "expected an alignment up to 2^31"),
        ("1: malloc 0x10 8 9 10 11 12", "expected the end of the line, found '12'"),
        ("1: malloc 0x10 8 junk", "expected a time or the end of the line, found 'junk'"),
        ("1: malloc 0x10 \x00\x01", "expected a size, found '??'"),
        ("1: malloc 0x10 " + "é" * 40, "expected a size, found '????"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(load, line, message):
    with pytest.raises(TraceError) as caught:
        load(b"1: malloc 0x10 8\n1: free 0x10\n" + line.encode() + b"\n1: free 0x10\n")
    assert f"some trace: line 3: {message}" in str(caught.value)


def test_a_truncated_last_line_is_refused(load):
    with pytest.raises(TraceError, match="line 2: truncated"):
        load(b"1: malloc 0x10 8\n1: malloc 0x20 8")


def test_a_damaged_text_is_refused_or_a_trace(load):
    for length in range(len(TEXT)):
        for data in (TEXT[:length], TEXT[:length] + b"\xff" + TEXT[length + 1 :]):
            try:
                load(data)
            except TraceError:
                pass


@pytest.mark.skipif("BSA_ANDROID_TRACE" not in os.environ, reason="BSA_ANDROID_TRACE names no file")
def test_the_large_android_trace_loads():
    trace = bsa.Trace.load(os.environ["BSA_ANDROID_TRACE"])
    assert len(trace) > 2_400_000
    assert trace.threads == 15
    assert trace[:] == trace


# ---- Raw recordings: made by hand here, by the recorder in test_record.py ----

KIND = {"malloc": 1, "calloc": 2, "free": 3, "begin": 4, "end": 5}


def recording(*events, claimed=None, backed=65536 + 131072 * 24, cut=0):
    """A raw recording of (kind, address, size, alignment code, thread); None is a torn event."""
    header = struct.pack(
        "=8sIIiIQQ",
        b"BSA\x1arec\n",
        1,
        0x01020304,
        4711,
        cut,
        len(events) if claimed is None else claimed,
        backed,
    )
    body = b""
    for event in events:
        kind, address, size, align_code, thread = event or ("none", 0, 0, 0, 0)
        tag = thread << 32 | align_code << 8 | KIND.get(kind, 0)
        body += struct.pack("=QQQ", address, size, tag)
    return (header.ljust(65536, b"\0") + body).ljust(min(backed, 2**24), b"\0")


def test_a_raw_recording_loads(load, trace):
    data = recording(
        ("malloc", 0x10, 100, 0, 7),
        ("calloc", 0x20, 40, 0, 7),
        ("begin", 0x10, 3000, 0, 8),
        ("end", 0x30, 3000, 0, 8),
        ("free", 0x20, 0, 0, 8),
        ("malloc", 0x20, 8, 13, 7),
        ("free", 0x30, 0, 0, 7),
    )
    loaded = load(data)
    assert loaded == trace
    assert loaded.meta == {
        "source": "recorder",
        "pid": 4711,
        "cut": False,
        "torn": 0,
        "unknown_frees": 0,
        "unknown_reallocs": 0,
        "missed_frees": 0,
    }


def test_an_old_address_may_be_handed_out_while_its_realloc_runs(load):
    loaded = load(
        recording(
            ("malloc", 0x10, 8, 0, 1),
            ("begin", 0x10, 99, 0, 1),
            ("malloc", 0x10, 5, 0, 2),
            ("end", 0x20, 99, 0, 1),
            ("free", 0x10, 0, 0, 2),
        )
    )
    assert list(loaded.op) == [ALLOC, ALLOC, REALLOC, FREE]
    assert list(loaded.id) == [0, 1, 0, 1]


def test_a_failed_realloc_leaves_the_block(load):
    loaded = load(
        recording(
            ("malloc", 0x10, 8, 0, 1),
            ("begin", 0x10, 2**40, 0, 1),
            ("end", 0, 2**40, 0, 1),
            ("free", 0x10, 0, 0, 1),
        )
    )
    assert list(loaded.op) == [ALLOC, FREE]


def test_torn_events_are_left_out_and_counted(load):
    loaded = load(recording(("malloc", 0x10, 8, 0, 1), None, ("free", 0x10, 0, 0, 1)))
    assert len(loaded) == 2
    assert loaded.meta["torn"] == 1


def test_events_claimed_beyond_the_file_are_counted_as_torn(load):
    loaded = load(
        recording(("malloc", 0x10, 8, 0, 1), claimed=131072 + 5, backed=65536 + 24, cut=1)
    )
    assert (len(loaded), loaded.meta["torn"], loaded.meta["cut"]) == (1, 131076, True)


@pytest.mark.parametrize(
    "data, message",
    [
        (recording()[:20], "offset 20: truncated inside the header"),
        (recording()[:-1], "offset 3211263: truncated: expected 3211264 bytes"),
        (recording(backed=100), "offset 32: expected a length of at least 65536, found 100"),
        (recording(backed=2**63), "offset 16777216: truncated: expected 9223372036854775808"),
        (recording().replace(b"\x01\0\0\0", b"\x09\0\0\0", 1), "offset 8: recording of version 9"),
        (recording(("malloc", 0, 8, 0, 1)), "offset 65536: an event at address 0"),
        (recording(("x", 1, 8, 1, 1)), "offset 65536: unknown kind of event, 0"),
    ],
    ids=["short", "shorter", "tiny", "huge", "version", "null", "kind"],
)
def test_a_damaged_recording_is_refused_with_its_offset(load, data, message):
    with pytest.raises(TraceError) as caught:
        load(data)
    assert message in str(caught.value)


# ---- info ----


def test_info_tells_what_is_in_a_trace(trace, tmp_path):
    trace.save(tmp_path / "t.bsa")
    text = describe(tmp_path / "t.bsa")
    for words in ("events            6 in", "3,040 bytes) alive after event 2", "a b", "realloc"):
        assert words in text


def test_the_size_histogram_counts_requests_by_power_of_two():
    sizes = [0, 1, 2, 3, 4, 5, 4096, 4097]
    trace = bsa.Trace.from_events((ALLOC, i, size, 0, 0) for i, size in enumerate(sizes))
    assert size_histogram(trace) == {0: 1, 1: 1, 2: 1, 4: 2, 8: 1, 4096: 1, 8192: 1}


# ---- The traces that come with the project ----

TRACES = pathlib.Path(__file__).parent / "traces"


@pytest.mark.parametrize("name", ["python", "threads", "sqlite3", "git", "perl", "gcc"])
def test_a_recorded_trace_of_a_real_program_is_whole(name):
    trace = bsa.Trace.load(TRACES / f"{name}.bsa")
    assert 20_000 <= len(trace) <= 300_000
    assert trace.meta["status"] == 0 and not trace.meta["cut"]
    assert (trace.threads > 1) == (name == "threads")


def test_the_recorded_traces_are_small():
    assert sum(path.stat().st_size for path in TRACES.iterdir()) < 3_000_000


# ---- What is shown ----


@pytest.mark.parametrize(
    "meta, text",
    [
        ({"status": 0, "cut": False}, "peak 100 bytes>"),
        ({"status": 139}, "peak 100 bytes, of a program that failed: status 139>"),
        ({"status": 0, "cut": True}, "peak 100 bytes, cut short>"),
        ({"status": 1, "cut": True}, "failed: status 1, cut short>"),
    ],
)
def test_the_repr_tells_of_trouble_with_the_recording(meta, text):
    trace = bsa.Trace.from_events(EVENTS[:1], meta=meta)
    assert repr(trace).endswith(text)
