"""Importers: every format is read right, damaged files are refused, exports can be read again."""

import gzip
import importlib.util
import io
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import zipfile
from array import array
from collections import Counter

import pytest

import bsa
from bsa import importers
from bsa.importers import FORMATS
from bsa.trace import TraceError, TraceOp

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, strategies as st  # noqa: E402
from test_trace import histories  # noqa: E402

ALLOC, ZALLOC, REALLOC, FREE = TraceOp

REP = b"20000\n3\n8\n1\na 0 512\na 1 128\nr 0 640\na 2 128\nf 1\nr 0 768\nf 0\nf 2\n"

MEMORY_REPLAY = b"7: malloc 0x10 8\n7: calloc 0x20 2 8\n7: realloc 0x30 0x10 9\n7: free 0x20\n"

# What `heaptrack --raw` and `heaptrack` wrote of a program of ours, some lines left out.
HEAPTRACK_RAW = b"""\
v 10400 3
x 7 ./small
X ./small
I 1000 5e298d
m 1 -
t 564bd75290b0 0
t 564bd7529199 1
+ 64 2 564c0e74d1d0
+ 64 2 564c0e74d300
- 564c0e74d1d0
t 564bd75291c1 1
+ 1388 3 564c0e74d640
- 564c0e74d300
c 0
R 3a9
"""
HEAPTRACK = b"""\
v 10400 3
X ./small
I 1000 5e298d
s 7 ./small
s 4 main
i 55d10fa53199 1 2
t 1 0
a 64 1
+ 0
+ 0
- 0
i 55d10fa531c1 1 2
t 2 0
a 1388 2
+ 1
- 0
c 0
R 3c6
# strings: 2
# ips: 2
"""

PERF = b"""\
# captured on: Mon Apr 22 10:00:00 2019
perf  6429 [003]    22.498450:             kmem:mm_page_alloc: page=0x176a17 pfn=1534487 order=0 \
migratetype=0 gfp_flags=GFP_KERNEL
    ffffffffbe23e32e __alloc_pages_nodemask+0x22e (/lib/modules/5.1.0/build/vmlinux)
\t7efdf7f7d3e8 __poll+0x18 (/usr/lib64/libc-2.28.so)

 dd  77 [001]    22.498460: kmem:mm_page_alloc: page=0x100 pfn=0x100 order=2 migratetype=1 gfp_flags=0
 dd  77 [001]    22.498470:  kmem:kfree: call_site=ffffffff ptr=0x10
 dd  77 [001]    22.498475: kmem:mm_page_alloc: page=(nil) pfn=0x0 order=9 migratetype=1 gfp_flags=0
perf  6429 [000]    22.498480:              kmem:mm_page_free: page=0x176a17 pfn=1534487 order=0
 dd  77 [003]    22.498490:     kmem:mm_page_free_batched: page=0x176a17 pfn=1534487 order=0
 dd  77 [003]    22.498490:             kmem:mm_page_free: page=0x100 pfn=0x100 order=2
"""

CSV = (
    b"op,id,size,align,thread\nalloc,0,512,64,0\nzalloc,1,8,0,1\nrealloc,0,640,0,1\nfree,1,0,0,0\n"
)

SAMPLES = {
    "rep": REP,
    "memory_replay": MEMORY_REPLAY,
    "heaptrack": HEAPTRACK,
    "perf": PERF,
    "csv": CSV,
}


@pytest.fixture
def load(tmp_path):
    """Trace.load of a file with the given bytes."""

    def load_bytes(data, **options):
        path = tmp_path / "some.file"
        path.write_bytes(data)
        return bsa.Trace.load(path, **options)

    return load_bytes


def events_of(trace):
    return [tuple(event) for event in trace]


def refusal(load, data, **options):
    """What a TraceError says of the data, after the name of the file."""
    with pytest.raises(TraceError) as caught:
        load(data, **options)
    name, _, text = str(caught.value).partition("some.file: ")
    assert name.endswith("/")
    return text


# ---- CS:APP ----

REP_EVENTS = [
    (ALLOC, 0, 512, 0, 0),
    (ALLOC, 1, 128, 0, 0),
    (REALLOC, 0, 640, 0, 0),
    (ALLOC, 2, 128, 0, 0),
    (FREE, 1, 0, 0, 0),
    (REALLOC, 0, 768, 0, 0),
    (FREE, 0, 0, 0, 0),
    (FREE, 2, 0, 0, 0),
]


def test_a_rep_file_loads(load):
    trace = load(REP)
    assert events_of(trace) == REP_EVENTS
    assert trace.meta == {
        "source": "rep",
        "skipped": 0,
        "unknown_frees": 0,
        "double_frees": 0,
        "unknown_reallocs": 0,
        "missed_frees": 0,
    }


@pytest.mark.parametrize(
    "data",
    [
        REP.replace(b"20000\n3\n8\n1\n", b"3\n8\n"),
        REP.replace(b"20000\n3\n8\n1\n", b"20000 3 8 1\n"),
        REP.replace(b"\n", b"\r\n"),
        REP.replace(b"\n", b" \n\n"),
    ],
    ids=["two numbers", "one line", "CR LF", "empty lines"],
)
def test_variants_of_rep_files_load_alike(load, data):
    assert load(data) == load(REP)


def test_a_free_of_minus_one_does_nothing_and_is_counted(load):
    trace = load(b"0\n1\n3\n1\na 0 8\nf -1\nf 0\n")
    assert events_of(trace) == [(ALLOC, 0, 8, 0, 0), (FREE, 0, 0, 0, 0)]
    assert trace.meta["skipped"] == 1


def test_a_rep_file_without_requests_is_an_empty_trace(load):
    assert len(load(b"20000\n0\n0\n1\n")) == len(load(b"0\n0\n")) == 0


def test_an_id_of_a_rep_file_may_be_used_again(load):
    trace = load(b"0\n1\n3\n1\na 0 8\nf 0\na 0 9\n")
    assert list(trace.id) == [0, 0, 0]


def test_large_ids_of_a_rep_file_are_numbered_anew(load):
    trace = load(b"0\n100000\n3\n1\na 99999 8\nf 99999\na 3 9\n")
    assert list(trace.id) == [0, 0, 0]


@pytest.mark.parametrize(
    "data, message",
    [
        (REP[:-4], "line 12: expected 8 requests, found 7"),
        (REP[:-1], "line 12: truncated: it has no newline"),
        (REP + b"a 0 1\n", "line 14: expected 8 requests, found 9"),
        (b"1\n2\n3\na 0 8\n", "line 1: expected a header of 2 or 4 numbers, found 3"),
        (b"1\n2\n3\n1\n\n", "line 6: expected 3 requests, found 0"),
        (b"1\n2x\n3\n4\na 0 8\n", "line 2: expected a number of the header or a request"),
        (REP.replace(b"a 1", b"b 1"), "line 6: expected a request: a, r or f, found 'b 1 128'"),
        (REP.replace(b"r 0 640", b"r 0"), "line 7: expected an id and a size, found 'r 0'"),
        (REP.replace(b"f 1\n", b"f 1 5\n"), "line 9: expected an id, found 'f 1 5'"),
        (REP.replace(b"640", b"64k"), "line 7: expected whole numbers, found 'r 0 64k'"),
        (REP.replace(b"a 2", b"a 3"), "line 8: expected an id from 0 to 2, found 'a 3 128'"),
        (REP.replace(b"a 2", b"a -1"), "line 8: expected an id from 0 to 2, found 'a -1 128'"),
        (REP.replace(b"640", b"-640"), "line 7: expected a size below 2^64, found 'r 0 -640'"),
        (REP.replace(b"640", b"9" * 20), "line 7: expected a size below 2^64"),
        (b"1\n%d\n1\n1\na %d 8\n" % (10**30, 1 << 64), "line 5: expected an id from 0 to"),
    ],
)
def test_a_damaged_rep_file_is_refused_with_its_line(load, data, message):
    assert refusal(load, data, format="rep").startswith(message)


# ---- heaptrack ----


def test_a_raw_heaptrack_file_loads(load):
    trace = load(HEAPTRACK_RAW)
    assert events_of(trace) == [
        (ALLOC, 0, 100, 0, 0),
        (ALLOC, 1, 100, 0, 0),
        (FREE, 0, 0, 0, 0),
        (ALLOC, 0, 5000, 0, 0),
        (FREE, 1, 0, 0, 0),
    ]
    assert trace.meta["source"] == "heaptrack"
    assert trace.meta["command"] == ["./small"]


def test_an_interpreted_heaptrack_file_frees_the_youngest_of_a_kind(load):
    raw, interpreted = load(HEAPTRACK_RAW), load(HEAPTRACK)
    assert list(interpreted.size) == list(raw.size)
    assert interpreted.peak == raw.peak
    assert list(interpreted.id) == [0, 1, 1, 1, 0]


# As heaptrack 1.0 to 1.2 wrote it: names without their lengths, no list of suppressions.
HEAPTRACK_OLD = re.sub(rb"(?m)^(x|s|m) [0-9a-f]+ ", rb"\1 ", HEAPTRACK_RAW)


@pytest.mark.parametrize("version", [b"v 10000 1", b"v 10100 2", b"v 10200"])
def test_raw_files_of_older_versions_of_heaptrack_load(load, version):
    data = HEAPTRACK_OLD.replace(b"v 10400 3", version)
    assert b"x ./small\n" in data and b"m -\n" in data
    assert load(data) == load(HEAPTRACK_RAW)


def test_a_program_that_heaptrack_was_attached_to_loads(load):
    """With the line that tells so, and a suppression that the program brings along."""
    data = HEAPTRACK_RAW.replace(b"v 10400 3", b"v 10500 3")
    data = data.replace(b"\nI 1000 5e298d\n", b"\nI 1000 5e298d\nS leak:libfoo\nA\n- 1234\n")
    trace = load(data)
    assert trace == load(HEAPTRACK_RAW)
    assert trace.meta["unknown_frees"] == 1


def test_a_command_of_several_lines_is_no_event(load):
    data = HEAPTRACK_RAW.replace(b"X ./small\n", b"X python3 -c import x\n+ 8 1 10\nx()\n")
    assert load(data) == load(HEAPTRACK_RAW)
    assert load(data).meta["command"] == ["python3", "-c", "import", "x"]


def test_of_a_command_as_long_as_a_file_the_beginning_is_kept(load):
    data = HEAPTRACK_RAW.replace(b"X ./small\n", b"X ./small" + b" a" * 100_000 + b"\n")
    command = load(data).meta["command"]
    assert command[:2] == ["./small", "a"] and len(command) < 1 << 15


def test_blocks_that_were_there_before_heaptrack_are_counted(load):
    trace = load(b"v 1 3\n- 10\n+ 8 1 20\n- 20\n- 20\n")
    assert events_of(trace) == [(ALLOC, 0, 8, 0, 0), (FREE, 0, 0, 0, 0)]
    assert (trace.meta["unknown_frees"], trace.meta["double_frees"]) == (1, 1)


def test_a_free_of_a_kind_without_blocks_is_counted(load):
    trace = load(b"v 1 3\na 8 1\n- 0\n+ 0\n- 0\n- 0\n")
    assert list(trace.op) == [ALLOC, FREE]
    assert trace.meta["unknown_frees"] == 2


@pytest.mark.parametrize(
    "data, message",
    [
        (HEAPTRACK[:-1], "line 20: truncated: it has no newline"),
        (b"+ 8 1 10\n", "line 1: expected the version of heaptrack"),
        (b"v 20000 4\n+ 8 1 10\n", "line 1: expected a format of version 3 or before, found 'v 2"),
        (b"v 1 3\n+ 8 1\n", "line 2: expected bytes, backtrace and address, or a kind"),
        (b"v 1 3\n+ 8 1 g\n", "line 2: expected hexadecimal numbers, found '+ 8 1 g'"),
        (b"v 1 3\n+ 0\n", "line 2: expected a kind below 0, found '+ 0'"),
        (b"v 1 3\na 8 1\n- 1\n", "line 3: expected a kind below 1, found '- 1'"),
        (b"v 1 3\na 8 1\n+ -1\n", "line 3: expected a kind below 1, found '+ -1'"),
        (b"v 1 3\na 8 1\n- -9\n", "line 3: expected a kind below 1, found '- -9'"),
        (b"v 1 3\na 8\n", "line 2: expected bytes and a backtrace, found 'a 8'"),
        (b"v 1 3\n- 1 2\n", "line 2: expected an address or a kind, found '- 1 2'"),
        (b"v 1 3\n+ 8 1 1" + b"0" * 16 + b"\n", "line 2: expected numbers below 2^64"),
        (b"v 1 3\n+ -8 1 10\n", "line 2: expected numbers below 2^64, found '+ -8 1 10'"),
        (b"v 1 3\n? 8\n", "line 2: expected a line of heaptrack, found '? 8'"),
        (b"v 1 3\nX ls\n+ 8 1 10\n", "line 2: expected a line I after the command"),
    ],
)
def test_a_damaged_heaptrack_file_is_refused_with_its_line(load, data, message):
    assert refusal(load, data, format="heaptrack").startswith(message)


PROGRAM = """\
#include <stdlib.h>
int main(void) {
    void *volatile a = malloc(12345);
    void *volatile b = calloc(10, 100);
    a = realloc(a, 54321);
    free(b);
    free(a);
    return 0;
}
"""


@pytest.mark.skipif(
    not all(map(shutil.which, ("heaptrack", "zstd", "cc"))) or "LD_PRELOAD" in os.environ,
    reason="needs heaptrack, zstd and cc, and nothing preloaded before heaptrack",
)
@pytest.mark.parametrize("options", [["--raw"], []], ids=["raw", "interpreted"])
def test_what_heaptrack_writes_today_loads(tmp_path, options):
    (tmp_path / "program.c").write_text(PROGRAM)
    subprocess.run(["cc", "-o", "program", "program.c"], cwd=tmp_path, check=True)
    command = ["heaptrack", *options, "-o", tmp_path / "out", tmp_path / "program"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (packed,) = tmp_path.glob("out*")
    if packed.suffix == ".zst":
        subprocess.run(["zstd", "-q", "-d", packed, "-o", tmp_path / "trace"], check=True)
        packed = tmp_path / "trace"
    events = [e for e in bsa.Trace.load(packed) if e.size in (0, 12345, 1000, 54321)]
    blocks = {event.id for event in events if event.op != FREE}
    sizes = [event.size for event in events if event.id in blocks]
    assert sizes[:6] == [12345, 1000, 0, 54321, 0, 0]


# ---- perf ----


def test_page_events_of_perf_script_load(load):
    trace = load(PERF)
    assert events_of(trace) == [
        (ALLOC, 0, 4096, 0, 0),
        (ALLOC, 1, 16384, 0, 1),
        (FREE, 0, 0, 0, 2),
        (FREE, 1, 0, 0, 0),
    ]
    assert (trace.meta["skipped"], trace.meta["pieces"]) == (1, 0)


def test_page_events_without_cpus_are_of_one_thread(load):
    assert set(
        load(PERF.replace(b"[003]", b"").replace(b"[001]", b"").replace(b"[000]", b"")).thread
    ) == {0}


# What Linux and the tools that decode its events print, by TP_printk of the versions named.
PAGE_EVENTS = {
    "perf, Linux 3.3 to 5.14: %lu": (
        b"perf  6429 [003]    22.498450:  kmem:mm_page_alloc: page=0x176a17 pfn=4660 order=1 "
        b"migratetype=0 gfp_flags=GFP_KERNEL|__GFP_ZERO\n",
        b"perf  6429 [003]    22.498480:   kmem:mm_page_free: page=0x176a17 pfn=4660 order=1\n",
    ),
    "perf, since Linux 5.15: 0x%lx": (
        b"kworker/3:2-mm_  52 [003] 22.498450: kmem:mm_page_alloc: page=0xffffffff981685f3 "
        b"pfn=0x1234 order=1 migratetype=1 gfp_flags=GFP_HIGHUSER_MOVABLE|__GFP_COMP\n",
        b"kworker/3:2-mm_  52 [003] 22.498480: kmem:mm_page_free: page=0xffffffff981685f3 "
        b"pfn=0x1234 order=1\n",
    ),
    "perf with nanoseconds and a sample period": (
        b":-1    -1 [003] 22.498450123:   1 kmem:mm_page_alloc: page=0x1 pfn=0x1234 order=1 m=1\n",
        b":-1    -1 [003] 22.498480456:   1 kmem:mm_page_free: page=0x1 pfn=0x1234 order=1\n",
    ),
    "perf or trace-cmd that cannot parse the format": (
        b" trace-cmd-22020 [003] 105219.542610: mm_page_alloc:        [FAILED TO PARSE] pfn=0x1234 "
        b"order=1 gfp_flags=29491274 migratetype=1\n",
        b" trace-cmd-22020 [003] 105219.542610: mm_page_free:         [FAILED TO PARSE] pfn=0x1234 "
        b"order=1\n",
    ),
    "trace-cmd": (
        b"cpus=8\n  <...>-187168 [003] 14540.343835: mm_page_alloc:        page=0xfff pfn=4660 "
        b"order=1 migratetype=1 gfp_flags=GFP_KERNEL\n",
        b"  <...>-187168 [003] 14540.343840: mm_page_free:         page=0xfff pfn=4660 order=1\n",
    ),
    "ftrace, with process groups": (
        b"# tracer: nop\n <...>-22275 ( 22270) [003] ....1   889.213383: mm_page_alloc: "
        b"page=00000000d2be5665 pfn=4660 order=1 migratetype=0 nr_free=3650 gfp_flags=GFP_HIGHUSER\n",
        b" <...>-22275 (-----) [003] d..2.   889.213387: mm_page_free: page=00000000d2be5665 "
        b"pfn=4660 order=1\n",
    ),
    "ftrace, before Linux 3.3": (
        b"  gnome-terminal-1567  [003]  4415.246506: mm_page_alloc: page=ffffea0003db9f40 pfn=4660 "
        b"order=1 migratetype=0 gfp_flags=GFP_KERNEL\n",
        b"  gnome-terminal-1567  [003]  4415.246506: mm_page_free_direct: page=ffffea0003db9f40 "
        b"pfn=4660 order=1\n",
    ),
}


@pytest.mark.parametrize("kind", PAGE_EVENTS)
def test_page_events_of_several_kernels_and_tools_load(load, kind):
    trace = load(b"".join(PAGE_EVENTS[kind]))
    assert events_of(trace) == [(ALLOC, 0, 8192, 0, 0), (FREE, 0, 0, 0, 0)]
    threads = load(pages(("alloc", 8, 0)) + b"".join(PAGE_EVENTS[kind])).thread
    assert list(threads) == [0, 1, 1], "the CPU was read"


def test_pages_freed_in_batches_by_old_kernels_are_frees(load):
    data = b" x-1 [000] 1.5: mm_pagevec_free: page=ffffea0003db9f40 pfn=8 order=0 cold=1\n"
    assert list(load(pages(("alloc", 8, 0)) + data).op) == [ALLOC, FREE]


@pytest.mark.parametrize(
    "fields",
    [
        b"page=0 pfn=0 order=9 migratetype=1",
        b"page=0000000000000000 pfn=0x0 order=9 migratetype=1",
        b"page=          (null) pfn=0 order=9 migratetype=1",
        b"page=(nil) pfn=0 order=9 migratetype=1",
        b"[FAILED TO PARSE] pfn=0xffffffffffffffff order=9 gfp_flags=1 migratetype=1",
        b"[FAILED TO PARSE] pfn=0xffffffff order=9 gfp_flags=1 migratetype=1",
    ],
)
def test_an_allocation_of_pages_that_failed_is_counted(load, fields):
    trace = load(b" dd-7 [001] 1.5: mm_page_alloc: " + fields + b"\n" + pages(("alloc", 8, 0)))
    assert len(trace) == 1 and trace.meta["skipped"] == 1


def test_events_that_the_source_says_it_lost_are_counted(load):
    lost = (
        b"CPU:3 [LOST 125 EVENTS]\nCPU:1 [4 EVENTS DROPPED]\n"
        b"perf 12 [002] 22.49: PERF_RECORD_LOST lost 20\n##### CPU 1 buffer started ####\n"
    )
    trace = load(pages(("alloc", 8, 0)) + lost)
    assert len(trace) == 1 and trace.meta["lost"] == 149


def test_page_events_of_ftrace_load(load):
    trace = load(
        b"# tracer: nop\n"
        b"  dd-52  [002] d..1.  4812.663214: mm_page_alloc: page=00000000d2f41a07 pfn=0x8a order=1 x=1\n"
        b"  dd-52  [002] d..1.  4812.663388: mm_page_free: page=00000000d2f41a07 pfn=0x8a order=1\n"
        b" => free_unref_page\n"
    )
    assert events_of(trace) == [(ALLOC, 0, 8192, 0, 0), (FREE, 0, 0, 0, 0)]


def pages(*events):
    """A text of page events (what, pfn, order)."""
    rows = [f"x 1 [000] 1.0: mm_page_{w}: page=1 pfn={p} order={o}\n" for w, p, o in events]
    return "".join(rows).encode()


def test_a_block_lives_until_its_last_piece_is_freed(load):
    pieces = [("free", 65, 0), ("free", 66, 1), ("free", 64, 0), ("free", 64, 0)]
    trace = load(pages(("alloc", 64, 2), *pieces[:2], ("alloc", 8, 0), *pieces[2:]))
    assert list(trace.op) == [ALLOC, ALLOC, FREE]
    assert list(trace.id) == [0, 1, 0]
    assert trace.meta["pieces"] == 3
    assert trace.meta["double_frees"] == 1


def test_pages_that_were_allocated_before_are_counted(load):
    trace = load(pages(("free", 8, 0), ("alloc", 8, 1), ("alloc", 8, 0)))
    assert list(trace.op) == [ALLOC, FREE, ALLOC]
    assert (trace.meta["unknown_frees"], trace.meta["missed_frees"]) == (1, 1)


@pytest.mark.parametrize(
    "data, message",
    [
        (PERF[:-1], "line 11: truncated: it has no newline"),
        (
            PERF + b"some words\n",
            "line 12: expected an event, a call chain or a comment, found 'some",
        ),
        (
            PERF.replace(b"pfn=0x100 order=2 m", b"pfn=0x100 m"),
            "line 6: expected page, pfn and order",
        ),
        (PERF.replace(b"order=2 m", b"order=99 m"), "line 6: expected numbers of a page event"),
        (PERF.replace(b"[001]", b"[x]"), "line 6: expected numbers of a page event"),
        (PERF.replace(b"=1534487", b"=153f487"), "line 2: expected numbers of a page event"),
    ],
)
def test_a_damaged_perf_text_is_refused_with_its_line(load, data, message):
    assert refusal(load, data).startswith(message)


# ---- buddyinfo ----

BUDDYINFO = b"""\
Node 0, zone      DMA      0      0      0      1
Node 0, zone   Normal  37434  40189     30      2
Node 1, zone   Normal      5      6      7      8
"""


@pytest.fixture
def buddyinfo(tmp_path):
    def save(data):
        (tmp_path / "buddyinfo").write_bytes(data)
        return tmp_path / "buddyinfo"

    return save


def test_buddyinfo_gives_free_counts_of_zones(buddyinfo):
    info = bsa.BuddyInfo.load(buddyinfo(BUDDYINFO))
    assert info.zones[1] == (0, "Normal", (37434, 40189, 30, 2))
    assert info.free_blocks() == (37439, 40195, 37, 11)
    assert info.free_blocks(node=0) == (37434, 40189, 30, 3)
    assert info.free_blocks(zone="Normal") == (37439, 40195, 37, 10)
    assert info.free_blocks(1, "Normal") == (5, 6, 7, 8)
    assert info.free_pages(1) == 5 + 12 + 28 + 64
    with pytest.raises(LookupError, match="no zone with node=1, zone='DMA'"):
        info.free_blocks(1, "DMA")


def test_a_zone_has_at_most_64_orders(buddyinfo):
    line = b"Node 0, zone Normal" + b" 1" * 64
    assert bsa.BuddyInfo.load(buddyinfo(line + b"\n")).free_pages() == 2**64 - 1
    with pytest.raises(bsa.TraceError, match="line 1: expected Node, zone and counts"):
        bsa.BuddyInfo.load(buddyinfo(line + b" 1\n"))


def test_snapshots_follow_one_another(buddyinfo):
    later = BUDDYINFO.replace(b"37434", b"    1")
    first, second = bsa.BuddyInfo.load_all(buddyinfo(BUDDYINFO + later))
    assert first.zones[0] == second.zones[0]
    assert second.zones[1].free_blocks[0] == 1
    assert bsa.BuddyInfo.load(buddyinfo(BUDDYINFO + later)) == second


@pytest.mark.skipif(not os.access("/proc/buddyinfo", os.R_OK), reason="needs Linux")
def test_this_machine_has_free_pages():
    assert bsa.BuddyInfo.load().free_pages() > 0


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "line 1: expected a line of /proc/buddyinfo"),
        (BUDDYINFO[:-1], "line 3: truncated"),
        (BUDDYINFO[:-9] + b"\n", "line 3: expected 4 counts"),
        (BUDDYINFO.replace(b"Node 1", b"Knot 1"), "line 3: expected Node, zone and counts"),
        (BUDDYINFO.replace(b"37434", b"37k34"), "line 2: expected Node, zone and counts"),
        (BUDDYINFO + BUDDYINFO[:50], "line 4: expected snapshots of 3 zones each"),
    ],
)
def test_damaged_buddyinfo_is_refused_with_its_line(buddyinfo, data, message):
    with pytest.raises(TraceError) as caught:
        bsa.BuddyInfo.load_all(buddyinfo(data))
    assert f"buddyinfo: {message}" in str(caught.value)


def test_buddyinfo_is_no_trace(load):
    assert "BuddyInfo.load reads it" in refusal(load, BUDDYINFO)


# ---- CSV ----

CSV_EVENTS = [
    (ALLOC, 0, 512, 64, 0),
    (ZALLOC, 1, 8, 0, 1),
    (REALLOC, 0, 640, 0, 1),
    (FREE, 1, 0, 0, 0),
]


def test_a_csv_file_loads(load):
    assert events_of(load(CSV)) == CSV_EVENTS


@pytest.mark.parametrize(
    "data",
    [
        CSV.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + CSV,
        CSV.replace(b"\nalloc", b"\nmalloc").replace(b"zalloc", b"calloc"),
        CSV.replace(b"free,1,0,0,0", b"FREE, 1,,,"),
        CSV.replace(b"alloc,0,512", b'"alloc","0","512"').replace(b"op", b'"op"'),
        CSV.replace(b"free", b"4"),
        b"size,when,ID,op,thread,align\n512,1 s,0,alloc,0,64\n8,,1,zalloc,1,0\n"
        b'640,"a\nb",0,realloc,1,\n,,1,free,0,\n',
    ],
    ids=["CR LF", "BOM", "names", "empty", "quotes", "numbers", "order"],
)
def test_variants_of_csv_files_load_alike(load, data):
    assert events_of(load(data)) == CSV_EVENTS


def test_blocks_of_a_csv_file_may_be_named_by_addresses(load):
    trace = load(b"op,id,size\nalloc,0x7f0000000010,8\nalloc,0X20,9\nfree,0x7f0000000010,\n")
    assert events_of(trace) == [(ALLOC, 0, 8, 0, 0), (ALLOC, 1, 9, 0, 0), (FREE, 0, 0, 0, 0)]


def test_threads_of_a_csv_file_may_be_any_numbers(load):
    trace = load(b"op,id,size,thread\nalloc,1,8,900000\nalloc,2,9,7\nfree,1,,900000\n")
    assert list(trace.thread) == [0, 1, 0]


def test_a_csv_file_without_events_is_an_empty_trace(load):
    assert len(load(b"op,id,size\n")) == 0


@pytest.mark.parametrize(
    "data, message",
    [
        (CSV[:-1], "line 5: truncated: it has no newline"),
        (b"op,id\nfree,1\n", "line 1: expected the column names op, id and size, each once"),
        (b"op,id,size,id\n", "line 1: expected the column names op, id and size, each once"),
        (CSV.replace(b"zalloc,1,8,0,1", b"zalloc,1,8,0"), "line 3: expected 5 fields, found"),
        (CSV + b"\n", "line 6: expected 5 fields, found the end of the line"),
        (CSV.replace(b"zalloc", b"kalloc"), "line 3: expected an operation"),
        (CSV.replace(b",640,", b",,"), "line 4: expected a size, found the end of the line"),
        (CSV.replace(b",640,", b",6.5,"), "line 4: expected a size, found '6.5'"),
        (CSV.replace(b",640,", b",-1,"), "line 4: expected a size from 0 to 2^64 - 1, found '-1'"),
        (CSV.replace(b"64,0\n", b"65,0\n"), "line 2: expected an alignment that is 0 or a power"),
        (CSV.replace(b"64,0\n", b"4294967296,0\n"), "line 2: expected an alignment from 0 to 2^32"),
        (CSV.replace(b"free,1", b"free,"), "line 5: expected an id, found the end of the line"),
        (CSV.replace(b"free,1", b"free,0xg"), "line 5: expected an id, found '0xg'"),
        (CSV + b"free,\xff,0,0,0\n", "offset 92: expected text in UTF-8"),
        (CSV + b'free,"0,0,0,0\n', "line 6: expected CSV: unexpected end of data"),
    ],
)
def test_a_damaged_csv_file_is_refused_with_its_place(load, data, message):
    assert refusal(load, data).startswith(message)


def test_a_wrong_line_after_many_is_refused_with_its_number(load):
    rows = [b"alloc,%d,8\nfree,%d,0\n" % (i, i) for i in range(50_000)]
    rows[40_000] = b"alloc,40000,8\nfree,x,0\n"
    data = b"op,id,size\n" + b"".join(rows)
    assert refusal(load, data) == "line 80003: expected an id, found 'x'"


# ---- Columns ----


def test_columns_of_any_integers_make_a_trace():
    expected = [(ALLOC, 0, 8, 0, 0), (FREE, 0, 0, 0, 0), (ALLOC, 0, 9, 16, 0)]
    address = [2**47, 2**47, 2**40]
    assert events_of(bsa.Trace.from_columns([1, 4, 1], address, [8, 99, 9], [0, 0, 16])) == expected
    lists = (["alloc", "free", "malloc"], array("Q", address), array("q", [8, 0, 9]))
    assert events_of(bsa.Trace.from_columns(*lists, iter([0, 0, 16]), (0, 0, 0))) == expected


def test_numpy_columns_make_a_trace_and_come_from_one():
    np = pytest.importorskip("numpy")
    table = np.array([[1, 2**47, 8], [1, 2**47 + 64, 16], [4, 2**47, 0]], dtype=np.int64)
    trace = bsa.Trace.from_columns(*table.T)
    assert events_of(trace) == [(ALLOC, 0, 8, 0, 0), (ALLOC, 1, 16, 0, 0), (FREE, 0, 0, 0, 0)]
    assert np.asarray(trace.size).tolist() == [8, 16, 0]
    columns = [np.asarray(getattr(trace, name)) for name in ("op", "id", "size", "align", "thread")]
    assert bsa.Trace(*columns) == bsa.Trace.from_columns(*columns) == trace


@pytest.mark.parametrize(
    "columns, message",
    [
        (([1], [0], [8, 9]), "columns differ in length"),
        (([1], [0], [8], [0, 0]), "columns differ in length"),
        (([1], [-1], [8]), "id: "),
        (([1], [0], [8.5]), "size: "),
        ((["grow"], [0], [8]), "op: event 0: 'grow' is none of alloc, zalloc, realloc, free"),
        (([5], [0], [8]), "event 0: unknown operation 5"),
        (([1], [0], [8], [3]), "event 0: alignment 3 is no power of two"),
        (([1, 4, 4], [7, 7, 7], [8, 0, 0]), "event 2: expected a live block, found a free of 0x7,"),
    ],
)
def test_columns_that_make_no_trace_are_refused(columns, message):
    with pytest.raises(TraceError) as caught:
        bsa.Trace.from_columns(*columns)
    assert str(caught.value).startswith(message)


def test_columns_keep_their_meta_beside_the_counts():
    trace = bsa.Trace.from_columns([4], [0], [0], bad="skip", meta={"from": "a table"})
    assert trace.meta["from"] == "a table"
    assert trace.meta["unknown_frees"] == 1


# ---- What does not fit together ----

# A free of nothing, an allocation, twice, a double free, a realloc of nothing.
BAD = {
    "csv": b"op,id,size\nfree,9,\nalloc,1,8\nalloc,1,9\nfree,1,\nfree,1,\nrealloc,1,10\n",
    "rep": b"0\n10\n6\n1\nf 9\na 1 8\na 1 9\nf 1\nf 1\nr 1 10\n",
}
BAD_RESULT = [
    (ALLOC, 1, 8, 0, 0),
    (FREE, 1, 0, 0, 0),
    (ALLOC, 1, 9, 0, 0),
    (FREE, 1, 0, 0, 0),
    (ALLOC, 1, 10, 0, 0),
]


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_skipped_and_counted_for_who_asks(load, name):
    trace = load(BAD[name], bad="skip")
    assert events_of(trace) == BAD_RESULT
    counts = ("unknown_frees", "double_frees", "unknown_reallocs", "missed_frees")
    assert [trace.meta[count] for count in counts] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "rows, message",
    [
        (b"free,9,\n", "line 2: expected a live block, found a free of 0x9, which was never"),
        (
            b"alloc,9,8\nfree,9,\nfree,9,\n",
            "line 4: expected a live block, found a free of 0x9, wh",
        ),
        (b"alloc,9,8\nalloc,9,8\n", "line 3: expected a new block, found an allocation of 0x9"),
        (b"realloc,9,8\n", "line 2: expected a live block, found a realloc of 0x9, which is not"),
    ],
)
def test_each_kind_of_bad_event_is_refused_by_default_in_whole_histories(load, rows, message):
    assert refusal(load, b"op,id,size\n" + rows).startswith(message)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"v 1 3\n+ 8 1 10\n- 20\n", "line 3: expected a live block, found a free of 0x20"),
        (pages(("alloc", 64, 0), ("free", 8, 0)), "line 2: expected a live block"),
        (
            MEMORY_REPLAY + b"7: free 0x77\n7: free 0x77\n",
            "line 5: expected a whole history, found 2",
        ),
    ],
    ids=["heaptrack", "perf", "memory_replay"],
)
def test_what_is_bad_in_a_partial_history_is_refused_for_who_asks(load, data, message):
    assert load(data).meta["unknown_frees"] > 0
    assert refusal(load, data, bad="raise").startswith(message)


def test_a_good_trace_is_the_same_whatever_is_asked_for(load):
    for data in SAMPLES.values():
        assert load(data, bad="raise") == load(data, bad="skip") == load(data)


def test_a_recording_is_refused_with_what_is_odd(load):
    from test_trace import recording

    data = recording(("free", 0x10, 0, 0, 1))
    assert load(data, bad="skip").meta["unknown_frees"] == 1
    assert refusal(load, data, bad="raise") == "expected a whole history, found 1 unknown free"


def test_options_that_there_are_not_are_refused_before_anything_is_read():
    with pytest.raises(ValueError, match="format 'elf' is none of bsa, recording"):
        bsa.Trace.load("missing", format="elf")
    with pytest.raises(ValueError, match="bad='ignore' is none of raise, skip"):
        bsa.Trace.load("missing", bad="ignore")
    with pytest.raises(ValueError, match="format 'perf' is none of bsa, rep, csv"):
        bsa.Trace.from_events([]).save("missing", format="perf")


def naively_settled(events):
    """The possible history in any events, the counts, and the first event that is bad."""
    live, seen, history, odd = set(), set(), [], []
    for index, (op, block, size) in enumerate(events):
        if op == FREE and block not in live:
            odd.append((index, "double_frees" if block in seen else "unknown_frees"))
            continue
        if op == REALLOC and block not in live:
            odd.append((index, "unknown_reallocs"))
            op = ALLOC
        elif op in (ALLOC, ZALLOC) and block in live:
            odd.append((index, "missed_frees"))
            history.append((FREE, block, 0, 0, 0))
        history.append((op, block, 0 if op == FREE else size, 0, 0))
        (live.discard if op == FREE else live.add)(block)
        seen.add(block)
    return history, Counter(name for _, name in odd), odd[0][0] if odd else None


@given(st.lists(st.tuples(st.sampled_from(TraceOp), st.integers(0, 4), st.integers(0, 9))))
def test_any_events_become_the_history_of_a_naive_reader_or_are_refused(events):
    columns = [[event[k] for event in events] for k in range(3)]
    history, counts, first = naively_settled(events)
    trace = bsa.Trace.from_columns(*columns, bad="skip")
    assert events_of(trace) == history
    assert {name: count for name, count in trace.meta.items() if count} == counts
    if first is None:
        assert bsa.Trace.from_columns(*columns) == trace
    else:
        with pytest.raises(TraceError, match=f"^event {first}: expected a (live|new) block"):
            bsa.Trace.from_columns(*columns)


# ---- Recognising ----


@pytest.mark.parametrize("name", SAMPLES)
def test_a_format_is_recognised_by_content_and_by_no_other(load, name):
    data = SAMPLES[name]
    assert [n for n, source in FORMATS.items() if source.recognises(data)] == [name]
    assert load(data) == load(data, format=name)
    assert load(data).meta["source"] == name


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_a_file_read_as_another_format_is_refused(load, name, sample):
    if name != sample:
        refusal(load, SAMPLES[sample], format=name)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_compressed_file_loads(load, name):
    data = SAMPLES[name]
    for bytes_ in (gzip.compress(data), lzma.compress(data), zipped(data)):
        assert load(bytes_) == load(data)
        assert "damaged" in refusal(load, bytes_[: len(bytes_) // 2])


@pytest.mark.parametrize("pack", ["gzip", "xz", "zip"])
def test_what_unpacks_to_more_than_it_should_is_refused(load, monkeypatch, pack):
    text = b"# nothing\n" * 1000 + PERF
    packed = {"gzip": gzip.compress, "xz": lzma.compress, "zip": zipped}[pack](text)
    monkeypatch.setattr(importers.packed, "MOST", len(text))
    assert load(packed) == load(PERF)
    monkeypatch.setattr(importers.packed, "MOST", len(text) - 1)
    monkeypatch.setattr(importers.packed, "RATIO", 1)
    message = rf"offset 0: {len(packed):,} bytes unpack to more than {len(text) - 1:,}: unpack "
    assert refusal(load, packed).startswith(message)
    monkeypatch.setattr(importers.packed, "RATIO", len(text))
    assert load(packed) == load(PERF)


def zipped(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t", data)
    return file.getvalue()


def test_a_file_compressed_by_zstd_is_refused_with_advice(load):
    assert "zstd -d" in refusal(load, b"\x28\xb5\x2f\xfd" + bytes(20))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_damaged_text_is_refused_or_a_trace(name):
    data = SAMPLES[name]
    for place in range(len(data)):
        for damaged in (data[:place], data[:place] + b"\xff" + data[place + 1 :]):
            for options in ((None, None), (name, "skip")):
                try:
                    columns, _ = importers.read(damaged, *options)
                except ValueError as error:
                    assert re.match("(line|offset) [0-9]+: ", str(error))
                else:
                    bsa.Trace(*columns_of(columns))


def columns_of(columns):
    """Arrays of what may be bytes."""
    formats = ("B", "I", "Q", "I", "I")
    return [memoryview(bytes(column)).cast(code) for column, code in zip(columns, formats)]


@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=60), st.data())
def test_no_bytes_at_all_crash_an_importer(tmp_path_factory, name, data, draw):
    start = SAMPLES.get(name, b"")
    cut = draw.draw(st.integers(0, len(start)))
    path = tmp_path_factory.getbasetemp() / "any bytes"
    path.write_bytes(start[:cut] + data)
    try:
        bsa.Trace.load(path, format=name)
    except TraceError:
        pass


# ---- Exports ----


def plain(events, **changes):
    """A trace of the events, with nothing on frees but their block and thread."""
    return bsa.Trace.from_events(
        (op, id, 0 if op == FREE else size, 0 if op == FREE else align, thread)
        for op, id, size, align, thread in events
    )


@given(histories())
def test_a_trace_saved_as_csv_loads_as_it_was(tmp_path_factory, events):
    path = tmp_path_factory.getbasetemp() / "round trip.csv"
    trace = plain(events)
    trace.save(path, format="csv")
    assert bsa.Trace.load(path) == trace


@given(histories())
def test_a_trace_saved_as_rep_loads_but_for_what_rep_has_not(tmp_path_factory, events):
    path = tmp_path_factory.getbasetemp() / "round trip.rep"
    trace = plain((max(op, 1), id, size, align, thread) for op, id, size, align, thread in events)
    trace.save(path, format="rep")
    plain_ops = [ALLOC if op == ZALLOC else op for op in trace.op]
    zeros = [0] * len(trace)
    same = bsa.Trace.from_columns(plain_ops, trace.id, trace.size, zeros, zeros)
    assert bsa.Trace.load(path) == same


def test_a_rep_file_is_written_as_the_malloc_lab_wants_it(tmp_path):
    bsa.Trace.from_events(REP_EVENTS).save(tmp_path / "t.rep", format="rep")
    assert (tmp_path / "t.rep").read_bytes() == REP.replace(b"20000", b"896")


def test_a_csv_file_is_written_with_names(tmp_path):
    bsa.Trace.from_events(CSV_EVENTS).save(tmp_path / "t.csv", format="csv")
    assert (tmp_path / "t.csv").read_bytes() == CSV


# ---- The documentation ----

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "traces.md"


@pytest.mark.skipif(not PAGE.exists(), reason="needs the source tree")
def test_the_python_of_the_page_on_traces_runs_as_shown(tmp_path, monkeypatch):
    from test_docs import blocks, run_block

    shutil.copytree(PAGE.parent.parent / "examples" / "traces", tmp_path / "traces")
    monkeypatch.chdir(tmp_path / "traces")
    names = {"__name__": "__main__"}
    ran = 0
    for line, needs, code in blocks(PAGE, "python"):
        if needs is None or importlib.util.find_spec(needs) is not None:
            run_block(code, names, PAGE, line)
            ran += 1
    assert ran >= 9
