"""The recorder: what it writes down, what it leaves alone, and how programs end.

Targets are small C programs (skipped without a compiler) and this Python. Sizes like 12345 serve as
names: a block is found in a trace by the size that only it was given.
"""

import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter

import pytest

import bsa
from bsa import record as recording
from bsa.record import RecordError, record
from bsa.trace import TraceOp

COMPILER = shutil.which("cc") or shutil.which("gcc")

needs_recorder = pytest.mark.skipif(
    not recording.RECORDER.exists(), reason="built without the recorder"
)
pytestmark = needs_recorder
can_ask_malloc = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="a free-threaded Python never asks malloc for small objects",
)

HEADERS = """
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
"""


@pytest.fixture
def compiled(tmp_path):
    """Compile a C program, given its functions or the body of its main; returns its path."""

    def build(code, *flags):
        if COMPILER is None:
            pytest.skip("no C compiler")
        if "int main(" not in code:
            code = "int main(int argc, char **argv) { (void)argc; (void)argv;\n" + code + "\n}"
        source, program = tmp_path / "target.c", tmp_path / "target"
        source.write_text(HEADERS + code)
        # Without builtins, or the compiler removes what nobody uses.
        command = [COMPILER, "-O1", "-w", "-fno-builtin", "-pthread", source, "-o", program, *flags]
        subprocess.run(command, check=True)
        return str(program)

    return build


@pytest.fixture
def recorded(tmp_path):
    """Record a command; returns its trace and status."""

    def run(*command, **options):
        trace, status = record(command, tmp_path / "out.bsa", **options)
        assert bsa.Trace.load(tmp_path / "out.bsa") == trace
        assert not [name for name in os.listdir(tmp_path) if ".raw-" in name]
        return trace, status

    return run


def block_events(trace, size):
    """The events of the block that was first given this size, up to its free."""
    events = iter(trace)
    first = next(event for event in events if event.size == size)
    found = [first]
    for event in events:
        if event.id == first.id:
            found.append(event)
        if found[-1].op == TraceOp.FREE:
            break
    return [(TraceOp(event.op).name, event.size, event.align) for event in found]


def nothing_is_odd(trace):
    odd = ("torn", "unknown_frees", "unknown_reallocs", "missed_frees")
    return not trace.meta["cut"] and all(trace.meta[name] == 0 for name in odd)


# ---- What is written down ----


def test_every_kind_of_request_is_recorded(compiled, recorded):
    program = compiled(
        """
        void *p;
        free(malloc(12301));
        free(calloc(12302, 3));
        p = realloc(NULL, 12303); p = realloc(p, 54303); free(p);
        p = reallocarray(NULL, 12304, 2); p = reallocarray(p, 12304, 9); free(p);
        posix_memalign(&p, 256, 12305); free(p);
        free(aligned_alloc(64, 12352));
        free(memalign(8192, 12307));
        free(valloc(12308));
        free(pvalloc(12309));
        return 0;"""
    )
    trace, status = recorded(program)
    page = os.sysconf("SC_PAGESIZE")
    free = ("FREE", 0, 0)
    assert status == 0
    assert block_events(trace, 12301) == [("ALLOC", 12301, 0), free]
    assert block_events(trace, 36906) == [("ZALLOC", 36906, 0), free]
    assert block_events(trace, 12303) == [("ALLOC", 12303, 0), ("REALLOC", 54303, 0), free]
    assert block_events(trace, 24608) == [("ALLOC", 24608, 0), ("REALLOC", 110736, 0), free]
    assert block_events(trace, 12305) == [("ALLOC", 12305, 256), free]
    assert block_events(trace, 12352) == [("ALLOC", 12352, 64), free]
    assert block_events(trace, 12307) == [("ALLOC", 12307, 8192), free]
    assert block_events(trace, 12308) == [("ALLOC", 12308, page), free]
    assert block_events(trace, 12309) == [("ALLOC", 12309, page), free]
    assert nothing_is_odd(trace)


def test_requests_that_fail_are_not_recorded(compiled, recorded):
    program = compiled(
        """
        void *p = malloc(12301);
        size_t huge = PTRDIFF_MAX;
        int bad = malloc(huge) != NULL || calloc(huge, 2) != NULL || realloc(p, huge) != NULL ||
                  reallocarray(p, huge, 4) != NULL || errno != ENOMEM;
        free(p);
        free(NULL);
        return bad;"""
    )
    trace, status = recorded(program)
    assert status == 0
    assert block_events(trace, 12301) == [("ALLOC", 12301, 0), ("FREE", 0, 0)]
    assert max(trace.size) < 2**62


def test_realloc_to_nothing_is_a_free(compiled, recorded):
    program = compiled("void *p = malloc(12301); return realloc(p, 0) != NULL;")
    trace, status = recorded(program)
    assert status == 0
    assert block_events(trace, 12301) == [("ALLOC", 12301, 0), ("FREE", 0, 0)]
    assert nothing_is_odd(trace)


def test_a_block_keeps_its_id_through_a_chain_of_reallocs(compiled, recorded):
    program = compiled(
        """
        void *p = malloc(12301);
        for (size_t n = 1; n <= 200; n++) {
            malloc(40);
            p = realloc(p, 100000 + n * 1000);
        }
        free(p);"""
    )
    trace, _ = recorded(program)
    sizes = [size for _, size, _ in block_events(trace, 12301)]
    assert sizes == [12301] + [100000 + n * 1000 for n in range(1, 201)] + [0]


def test_errno_survives_every_call(compiled, recorded):
    program = compiled(
        """
        for (int i = 0; i < 400000; i++) {
            errno = 77;
            void *p = malloc(20);
            if (errno != 77) return 1;
            free(p);
            if (errno != 77) return 2;
        }
        return 0;"""
    )
    trace, status = recorded(program)
    assert status == 0
    assert len(trace) >= 800_000
    assert nothing_is_odd(trace)


# ---- Threads ----

HAND_OVER = """
enum { THREADS = 6, ROUNDS = 60000, PLACES = 512 };
static void *places[PLACES];

static void *work(void *name) {
    unsigned random = (unsigned)(uintptr_t)name * 2654435761u;
    malloc(12300 + (size_t)name);
    for (int i = 0; i < ROUNDS; i++) {
        random = random * 1664525 + 1013904223;
        void *mine = i % 4 ? malloc(random >> 24) : calloc(random >> 24, 2);
        if (i % 3 == 0) mine = realloc(mine, (random >> 22) + 1);
        free(__atomic_exchange_n(&places[(random >> 8) % PLACES], mine, __ATOMIC_ACQ_REL));
    }
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, (void *)i);
    for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (size_t i = 0; i < PLACES; i++) free(places[i]);
    return 0;
}
"""


def test_blocks_freed_by_other_threads_are_recorded_in_a_possible_order(compiled, recorded):
    trace, status = recorded(compiled(HAND_OVER))
    assert status == 0
    assert len(trace) > 6 * 60_000 * 2
    assert nothing_is_odd(trace)


def test_each_thread_has_a_number_of_its_own(compiled, recorded):
    trace, _ = recorded(compiled(HAND_OVER))
    names = {e.thread for e in trace if 12300 <= e.size < 12306 and e.op == TraceOp.ALLOC}
    assert len(names) == 6
    assert trace.threads == 7


# ---- Processes ----


def test_a_forked_child_is_not_recorded_and_its_parent_still_is(compiled, recorded):
    program = compiled(
        """
        malloc(12301);
        if (fork() == 0) {
            for (int i = 0; i < 200000; i++) free(malloc(666));
            _exit(0);
        }
        wait(NULL);
        malloc(12302);"""
    )
    trace, _ = recorded(program)
    sizes = set(trace.size)
    assert {12301, 12302} <= sizes and 666 not in sizes
    assert nothing_is_odd(trace)


def test_a_child_that_outlives_the_program_writes_nothing_into_its_recording(compiled, recorded):
    program = compiled(
        """
        if (fork() == 0) {
            usleep(100000);
            for (int i = 0; i < 200000; i++) malloc(666);
            _exit(0);
        }
        malloc(12301);"""
    )
    trace, _ = recorded(program)
    assert 12301 in trace.size and 666 not in trace.size


def test_fork_while_other_threads_allocate_does_not_hang(compiled, recorded):
    program = compiled(
        """
static void *work(void *unused) {
    for (;;) free(malloc(100));
}
int main(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, work, NULL);
    for (int i = 0; i < 200; i++) {
        pid_t child = fork();
        if (child == 0) {
            free(malloc(666));
            _exit(0);
        }
        waitpid(child, NULL, 0);
    }
    _exit(0);
}"""
    )
    trace, status = recorded(program)
    assert status == 0
    assert 666 not in trace.size


def test_programs_executed_by_children_are_not_recorded(recorded):
    trace, status = recorded("sh", "-c", f"{sys.executable} -c 'print()'; exit 5")
    assert status == 5
    assert len(trace) < 5_000


def test_a_program_executed_in_place_is_the_one_recorded(compiled, recorded):
    program = compiled("malloc(12301);")
    trace, _ = recorded("sh", "-c", f"exec env -u NOTHING {program}")
    assert 12301 in trace.size


def test_a_program_may_close_all_descriptors(compiled, recorded, tmp_path):
    program = compiled(
        """
        for (int fd = 3; fd < 256; fd++) close(fd);
        int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
        for (int i = 0; i < 300000; i++) free(malloc(8));
        return fd != 3 || write(fd, "mine", 4) != 4;"""
    )
    trace, status = recorded(program, str(tmp_path / "own file"))
    assert status == 0
    assert len(trace) >= 600_000
    assert (tmp_path / "own file").read_bytes() == b"mine"


# ---- The end ----


@pytest.mark.parametrize(
    "end, expected",
    [
        ("return 7;", 7),
        ("_exit(8);", 8),
        ("quick_exit(9);", 9),
        ("abort();", 128 + signal.SIGABRT),
        ("raise(SIGKILL);", 128 + signal.SIGKILL),
        ("*(volatile int *)8 = 1;", 128 + signal.SIGSEGV),
    ],
)
def test_however_a_program_ends_its_recording_is_kept(compiled, recorded, end, expected):
    body = "for (int i = 0; i < 100000; i++) malloc(i); void *last = malloc(123456);" + end
    trace, status = recorded(compiled(body))
    assert status == trace.meta["status"] == expected
    assert 123456 in trace.size
    assert nothing_is_odd(trace)


def run_in_background(tmp_path, program):
    """Record a program from a process, and in a group, of its own; wait for its first line."""
    script = (
        "import sys; from bsa.record import record; sys.exit(record(sys.argv[2:], sys.argv[1])[1])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "out.bsa", program],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout.readline() == b"ready\n"
    return process


WAITS = 'malloc(12301); puts("ready"); fflush(stdout); for (;;) pause();'
CATCHES = """
static void caught(int signum) { _exit(42); }
int main(void) {
    signal(SIGINT, caught); signal(SIGTERM, caught);
    malloc(12301); puts("ready"); fflush(stdout); for (;;) pause();
}"""


@pytest.mark.parametrize("code, expected", [(WAITS, 128 + signal.SIGINT), (CATCHES, 42)])
def test_ctrl_c_is_for_the_program_and_the_recording_is_kept(compiled, tmp_path, code, expected):
    with run_in_background(tmp_path, compiled(code)) as process:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == expected
    assert 12301 in bsa.Trace.load(tmp_path / "out.bsa").size


@pytest.mark.parametrize("code, expected", [(WAITS, 128 + signal.SIGTERM), (CATCHES, 42)])
def test_a_signal_to_end_is_passed_on_and_the_recording_is_kept(compiled, tmp_path, code, expected):
    with run_in_background(tmp_path, compiled(code)) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == expected
    assert 12301 in bsa.Trace.load(tmp_path / "out.bsa").size


def test_a_signal_that_comes_while_the_program_is_being_started_reaches_it(
    compiled, tmp_path, monkeypatch
):
    start = subprocess.Popen

    def start_and_be_told_to_end(command, env):
        process = start(command, env=env)
        while not os.path.exists(env["BSA_RECORD_FILE"]) or not os.path.getsize(
            env["BSA_RECORD_FILE"]
        ):
            time.sleep(0.01)  # until the recorder is there
        os.kill(os.getpid(), signal.SIGTERM)
        return process

    program = compiled("free(malloc(12301)); pause();")
    monkeypatch.setattr(recording.subprocess, "Popen", start_and_be_told_to_end)
    assert record([str(program)], tmp_path / "out.bsa").status == 128 + signal.SIGTERM


def test_signal_handlers_are_restored(recorded):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    recorded("true")
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_a_file_that_cannot_grow_cuts_the_recording_and_spares_the_program(compiled, recorded):
    program = compiled("for (int i = 0; i < 1000000; i++) free(malloc(8)); return 6;")
    trace, status = recorded("sh", "-c", f"ulimit -f 8000; exec {program}")
    assert status == 6
    assert trace.meta["cut"] is True
    assert 100_000 < len(trace) < 1_000_000


# ---- The program is as without the recorder ----

BEHAVIOUR = """
import os, sys, threading
text = []
threads = [threading.Thread(target=text.append, args=(str(n),)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(text), sys.stdin.read(), sorted(os.listdir("/proc/self/fd")))
print("to stderr", file=sys.stderr)
sys.exit(3)
"""


def test_output_and_status_are_as_without_the_recorder(tmp_path):
    command = [sys.executable, "-c", BEHAVIOUR]
    plain = subprocess.run(command, input=b"in", capture_output=True)
    script = (
        "import sys; from bsa.record import record; sys.exit(record(sys.argv[2:], sys.argv[1])[1])"
    )
    wrapped = [sys.executable, "-c", script, tmp_path / "out.bsa", *command]
    under = subprocess.run(wrapped, input=b"in", capture_output=True)
    assert (under.returncode, under.stdout, under.stderr) == (3, plain.stdout, plain.stderr)


@can_ask_malloc
def test_python_targets_are_made_to_ask_malloc(recorded):
    trace, _ = recorded(sys.executable, "-S", "-c", "x = [object() for i in range(5000)]")
    assert Counter(trace.size).most_common(1)[0][1] > 5000


def test_a_given_pythonmalloc_is_left_alone(recorded):
    env = dict(os.environ, PYTHONMALLOC="pymalloc")
    trace, _ = recorded(sys.executable, "-S", "-c", "x = [object() for i in range(5000)]", env=env)
    assert max(Counter(trace.size).values()) < 5000


def test_the_command_and_counts_are_in_meta(recorded):
    trace, _ = recorded("sh", "-c", "true")
    assert trace.meta["command"] == ["sh", "-c", "true"]
    assert trace.meta["source"] == "recorder"


# ---- From Python: Trace.record ----


@can_ask_malloc
def test_a_trace_can_be_recorded_and_replayed_in_two_lines():
    trace = bsa.Trace.record([sys.executable, "-S", "-c", "x = [object() for i in range(5000)]"])
    timeline = bsa.replay(trace, bsa.Allocator(64 << 20))
    assert timeline.events == len(trace) > 5000
    assert Counter(trace.size).most_common(1)[0][1] > 5000, "PYTHONMALLOC was set"


def test_one_string_is_split_as_a_shell_does():
    trace = bsa.Trace.record("sh -c 'exit 3' \"a b\" c\\ d")
    assert trace.meta["command"] == ["sh", "-c", "exit 3", "a b", "c d"]
    assert trace.meta["status"] == 3


def test_without_a_path_no_file_is_left(tmp_path, monkeypatch):
    folder = tempfile.mkdtemp(dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    monkeypatch.chdir(tmp_path)
    bsa.Trace.record("true")
    assert os.listdir(folder) == os.listdir(tmp_path) == []
    os.rmdir(folder)


def test_with_a_path_the_trace_is_saved_there(tmp_path):
    trace = bsa.Trace.record("true", path=tmp_path / "out.bsa")
    loaded = bsa.Trace.load(tmp_path / "out.bsa")
    assert loaded == trace and loaded.meta == trace.meta
    assert os.listdir(tmp_path) == ["out.bsa"]


def test_a_program_that_dies_leaves_its_trace_and_its_status(compiled):
    trace = bsa.Trace.record([compiled("malloc(12301); abort();")])
    assert 12301 in trace.size
    assert trace.meta["status"] == 128 + signal.SIGABRT


def test_the_input_and_output_of_the_program_are_those_of_its_starter():
    command = [sys.executable, "-c", "import bsa; bsa.Trace.record('tr a-z A-Z')"]
    done = subprocess.run(command, input="words", capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "WORDS", "")


def test_the_environment_can_be_given():
    trace = bsa.Trace.record("sh -c 'exit $NUMBER'", env=dict(os.environ, NUMBER="7"))
    assert trace.meta["status"] == 7


@pytest.mark.parametrize(
    "command, message",
    [
        ("", "no command"),
        ("no-such-command -x", "no-such-command: command not found"),
        ("echo 'half", "cannot split .* into words: No closing quotation"),
        ("yes | head", r"'\|' in 'yes | head' is for a shell, and none runs: quote it if"),
        ("true > out", "'>' in"),
        ("true >out", "'>out' in"),
        ("true 2>&1", "'2>&1' in"),
        ("true <in", "'<in' in"),
        ("true && false", "'&&' in"),
        ("true || false", r"'\|\|' in"),
        ("cd /; ls", "'/;' in"),
        ("sleep 1 &", "'&' in"),
    ],
)
def test_what_cannot_be_started_is_a_record_error(command, message):
    with pytest.raises(bsa.RecordError, match=message):
        bsa.Trace.record(command)


@pytest.mark.parametrize(
    "command, words",
    [
        ("echo '|' \">\" \\& a';'", ["echo", "|", ">", "&", "a;"]),
        ('echo "a | b > c" x|y a>b http://x/?a&b=c', None),
        ("echo $HOME *.c {a,b} (1) # no comment", None),
        (["echo", "|", "2>&1"], ["echo", "|", "2>&1"]),
    ],
)
def test_words_that_only_look_like_a_shells_are_arguments(command, words):
    assert bsa.Trace.record(command).meta["command"] == (words or shlex.split(command))


def test_a_command_of_bytes_is_a_type_error():
    with pytest.raises(TypeError):
        bsa.Trace.record(b"true")


# ---- The surroundings ----


def printed_preload(folder, **options):
    """What a recorded program sees as LD_PRELOAD."""
    output = os.path.join(folder, "preload")
    record(["sh", "-c", 'printf "%s" "$LD_PRELOAD" > "$0"', output], output + ".bsa", **options)
    with open(output, encoding="utf-8") as file:
        return file.read()


def test_entries_of_ld_preload_are_kept(tmp_path):
    other = "/nonexistent/libfirst.so:/nonexistent/libsecond.so"
    seen = printed_preload(tmp_path, env=dict(os.environ, LD_PRELOAD=other))
    assert seen.split() == [seen.split()[0], other]
    assert seen.split()[0].endswith(recording.RECORDER.name)


def test_paths_with_spaces_and_colons_are_no_trouble(tmp_path, monkeypatch, compiled):
    odd = tmp_path / "a b:c $LIB"
    odd.mkdir()
    shutil.copy(recording.RECORDER, odd)
    monkeypatch.setattr(recording, "RECORDER", odd / recording.RECORDER.name)
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    trace, status = record([compiled("malloc(12301);")], odd / "out.bsa")
    assert 12301 in trace.size
    assert sorted(os.listdir(odd)) == [recording.RECORDER.name, "out.bsa"]


def test_nothing_temporary_is_left(tmp_path, monkeypatch):
    folder = tempfile.mkdtemp(dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    record(["true"], tmp_path / "out.bsa")
    assert os.listdir(folder) == []
    os.rmdir(folder)


def test_record_works_outside_the_main_thread(tmp_path):
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(record, ["true"], tmp_path / f"{i}.bsa") for i in range(4)]
        assert [job.result().status for job in jobs] == [0] * 4


# ---- Refusals ----


def refusal(tmp_path, *command):
    with pytest.raises(RecordError) as caught:
        record(command, tmp_path / "out.bsa")
    assert not [name for name in os.listdir(tmp_path) if name.startswith("out.bsa")]
    return caught.value


def test_a_missing_command_is_named(tmp_path):
    error = refusal(tmp_path, "no-such-command")
    assert str(error) == "no-such-command: command not found"
    assert error.status == 127


def test_a_file_that_is_no_program_is_named(tmp_path):
    (tmp_path / "data").write_text("no program")
    error = refusal(tmp_path, str(tmp_path / "data"))
    assert "data: " in str(error)
    assert error.status == 126


def test_no_command_at_all_is_refused(tmp_path):
    assert "no command" in str(refusal(tmp_path))


def test_a_static_program_cannot_be_recorded(compiled, tmp_path):
    try:
        program = compiled("return 5;", "-static")
    except subprocess.CalledProcessError:
        pytest.skip("no static C library")
    error = refusal(tmp_path, program)
    assert "statically linked" in str(error)
    assert error.status == 5


def test_a_build_without_the_recorder_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "RECORDER", tmp_path / "missing.so")
    assert "no recorder" in str(refusal(tmp_path, "true"))


def test_record_errors_pickle():
    error = pickle.loads(pickle.dumps(RecordError("text", 126)))
    assert (str(error), error.status) == ("text", 126)


def test_an_output_that_cannot_be_written_is_refused_before_the_program_runs(tmp_path):
    witness = tmp_path / "ran"
    for output in (tmp_path, tmp_path / "missing" / "out.bsa"):
        with pytest.raises(RecordError, match="folder"):
            record(["touch", witness], output)
    assert not witness.exists()


def test_only_a_saved_trace_is_replaced(tmp_path):
    witness, script = tmp_path / "ran", tmp_path / "script.py"
    script.write_text("print()\n")
    with pytest.raises(RecordError, match="script.py is there already, and is no saved trace"):
        record(["touch", witness], script)
    assert script.read_text() == "print()\n" and not witness.exists()
    output = tmp_path / "out.bsa"
    output.touch()
    for _ in range(2):  # over an empty file, and over a trace
        record(["touch", witness], output)
        assert bsa.Trace.load(output).meta["command"] == ["touch", str(witness)]


def test_a_recording_that_cannot_be_saved_is_left_as_it_is(tmp_path, compiled, monkeypatch):
    def fail(trace, path):
        raise OSError("disk full")

    monkeypatch.setattr(bsa.Trace, "save", fail)
    with pytest.raises(RecordError, match="the raw recording is left in (.*)") as caught:
        record([compiled("malloc(12301);")], tmp_path / "out.bsa")
    raw = str(caught.value).rpartition("left in ")[2]
    assert 12301 in bsa.Trace.load(raw).size


def test_the_recorder_does_not_touch_a_file_of_somebody_else(compiled, tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(b"x" * 200)
    env = dict(os.environ, LD_PRELOAD=str(recording.RECORDER), BSA_RECORD_FILE=str(mine))
    subprocess.run([compiled("free(malloc(8));")], env=env, check=True)
    assert mine.read_bytes() == b"x" * 200


def test_a_kill_from_outside_loses_nothing(compiled, tmp_path):
    raw = tmp_path / "raw"
    env = dict(os.environ, LD_PRELOAD=str(recording.RECORDER), BSA_RECORD_FILE=str(raw))
    program = compiled(HAND_OVER.replace("ROUNDS = 60000", "ROUNDS = 2000000000"))
    process = subprocess.Popen([program], env=env)
    time.sleep(0.3)
    process.kill()
    process.wait()
    trace = bsa.Trace.load(raw)
    assert len(trace) > 1000
    assert trace.meta["torn"] <= 6
