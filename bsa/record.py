"""Recording a program: run it with the malloc recorder preloaded, keep its trace.

The recorder (csrc/hosted/recorder.c) is a shared library of its own. It writes a raw recording
while the program runs, beside the output if there is one; afterwards this becomes a trace.
"""

import contextlib
import os
import pathlib
import re
import secrets
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from typing import NamedTuple

from bsa import output_file, trace_file
from bsa.trace import RecordError, Trace, TraceError
from bsa.units import counted, format_size

RECORDER = pathlib.Path(__file__).parent / "lib" / "libbsa_record.so"

_NOT_EXECUTABLE = 126
_NOT_FOUND = 127

# Words that mean something to a shell, and only to a shell: a | b, a > b, 2>&1, a && b, a; b, a &.
_FOR_A_SHELL = re.compile(r"\|.*|&+|\d*[<>].*|&>.*|.*;")

# At these the loader splits LD_PRELOAD, and "$" begins a token of its own.
_UNCLEAN = re.compile(r"[\s:$]")


class Recording(NamedTuple):
    """What record() returns."""

    trace: Trace
    status: int  #: the program's exit status, or 128 + the signal it died of


def record(command, output=None, *, env=None):
    """Run `command`, record its allocations, and save the trace to `output` unless that is None.

    `command` is a sequence of strings, or one string that shlex.split() splits; it is refused if it
    has pipes, redirections or other words for a shell, which does not run. The process that is
    started is recorded, or what it becomes by exec; its children are not. `env` is its environment
    (default: this process's). LD_PRELOAD keeps its entries, and PYTHONMALLOC becomes "malloc" if it
    is not set: Python asks malloc for little otherwise, others ignore it.

    The trace is saved however the program ends. Signals meant for it reach it. RecordError: the
    command cannot be run, or the loader did not preload the recorder (programs that are statically
    linked or setuid), or this build of bsa has no recorder, or the output cannot be written, or is a
    file that is there already and no saved trace.
    """
    command = _words(command)
    output = None if output is None else os.path.realpath(os.fsdecode(output))
    raw = _raw_path(output)
    if not RECORDER.exists():
        raise RecordError(f"this build of bsa has no recorder: {RECORDER} is missing")
    with _signals_go_to_the_program() as program, _preloadable(RECORDER) as library:
        status = program.run(command, _environment(env, library, raw))
        return Recording(_convert(raw, output, command, status), status)


def _words(command):
    words = _split(command) if isinstance(command, str) else command
    words = [os.fsdecode(word) for word in words]
    if not words:
        raise RecordError("no command to record")
    return words


def _split(command):
    """The words of a command line, as shlex.split() has them, but for those meant for a shell."""
    lexer = shlex.shlex(command, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words, end = [], 0
    try:
        for word in lexer:
            start, end = end, lexer.instream.tell()
            is_bare = command[start:end].strip() == word  # neither quoted nor escaped
            if is_bare and _FOR_A_SHELL.fullmatch(word):
                raise RecordError(
                    f"{word!r} in {command!r} is for a shell, and none runs: quote it if it is an "
                    "argument; else record one program, as ['sh', '-c', 'exec PROGRAM > FILE'] if "
                    "it needs a shell"
                )
            words.append(word)
    except ValueError as error:
        raise RecordError(f"cannot split {command!r} into words: {error}") from None
    return words


def _raw_path(output):
    """Where the raw recording goes. Refuses, before the program runs, what would lose it."""
    name = f"raw-{secrets.token_hex(8)}"
    if output is None:
        return os.path.join(tempfile.gettempdir(), f"bsa-{name}")
    try:
        output_file.check(output)
        if os.path.isfile(output) and not _may_be_replaced(output):
            raise RecordError(f"{output} is there already, and is no saved trace: not replaced")
    except OSError as error:
        raise RecordError(str(error)) from None
    return f"{output}.{name}"


def _may_be_replaced(path):
    """Not the script to be recorded, say, whose name was given by mistake."""
    with open(path, "rb") as file:
        start = file.read(len(trace_file.MAGIC))
    return not start or trace_file.recognises(start)


# ---- The environment of the program ----


@contextlib.contextmanager
def _preloadable(library):
    """A link to the library whose path can stand in LD_PRELOAD."""
    with tempfile.TemporaryDirectory(prefix="bsa-", dir=_clean_folder()) as folder:
        link = os.path.join(folder, library.name)
        os.symlink(library.resolve(), link)
        yield link


def _clean_folder():
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        if not _UNCLEAN.search(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise RecordError("no temporary folder whose path is free of spaces and colons")


def _environment(env, library, raw):
    env = dict(os.environ if env is None else env)
    # First, before another allocator that may be preloaded: whose malloc comes first is called.
    env["LD_PRELOAD"] = " ".join(filter(None, [library, env.get("LD_PRELOAD")]))
    env["BSA_RECORD_FILE"] = raw
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):  # a Python without GIL refuses to start so
        env.setdefault("PYTHONMALLOC", "malloc")
    return env


# ---- Running it ----


class _Program:
    """The program being recorded, once it runs."""

    def __init__(self):
        self._process = None
        self._early = []  # signals that came before it was known to run

    def run(self, command, env):
        """Its exit status as a shell reports it."""
        try:
            self._process = subprocess.Popen(command, env=env)
        except FileNotFoundError:
            raise RecordError(f"{command[0]}: command not found", _NOT_FOUND) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RecordError(f"{command[0]}: {reason}", _NOT_EXECUTABLE) from error
        for signum in self._early:  # the program may run before Popen returns
            self._process.send_signal(signum)
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def forward(self, signum, frame):
        if self._process is None:
            self._early.append(signum)
        else:
            self._process.send_signal(signum)


def _leave_to_the_program(signum, frame):
    """The terminal sends Ctrl-C and Ctrl-\\ to the program too; it decides what happens."""


@contextlib.contextmanager
def _signals_go_to_the_program():
    """Until the trace is saved, no signal that can be caught ends this process.

    Handlers, not SIG_IGN, which the program would inherit. What is ignored already stays so: a
    program under nohup inherits that. Only the main thread may set handlers; elsewhere, they are
    the caller's.
    """
    program = _Program()
    handlers = {
        signal.SIGINT: _leave_to_the_program,
        signal.SIGQUIT: _leave_to_the_program,
        signal.SIGTERM: program.forward,
        signal.SIGHUP: program.forward,
    }
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for signum, handler in handlers.items():
                if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                    before[signum] = signal.signal(signum, handler)
        yield program
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


# ---- The trace ----


def _convert(raw, output, command, status):
    """Make a trace of the raw recording, which stays if that fails."""
    if not os.path.exists(raw):
        raise RecordError(
            f"nothing was recorded: {command[0]} is statically linked, setuid, for another kind of "
            "processor, or brings a malloc of its own (a sanitizer's, say), so the recorder cannot "
            "be loaded into it",
            status or 1,
        )
    try:
        trace = Trace.load(raw)
        trace.meta.update(command=command, status=status)
        if output is not None:
            trace.save(output)
    except (OSError, TraceError, MemoryError) as error:
        raise RecordError(f"{error}; the raw recording is left in {raw}", status or 1) from error
    os.unlink(raw)
    return trace


# ---- The command line ----


def add_parser(subparsers):
    """Add `record` to the commands of `python -m bsa`."""
    parser = subparsers.add_parser(
        "record",
        help="run a program and record its allocations",
        usage="%(prog)s -o FILE [--] COMMAND ...",
        description="Run COMMAND, record every malloc and free of its process (not of its "
        "children), and save the trace to FILE. The exit status is that of COMMAND.",
        epilog="Example: python3 -m bsa record -o work.bsa -- python3 work.py",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="the trace file to write, for replay and info",
    )
    parser.add_argument(
        "program", nargs="...", metavar="COMMAND", help="the program to run, and its arguments"
    )
    parser.set_defaults(run=run)


def run(args):
    """The command `record`: the exit status of the program."""
    command = args.program[1:] if args.program[:1] == ["--"] else args.program
    if args.output is None:  # not `required`, which would be told instead of a misspelt --output
        args.parser.error("the following arguments are required: -o/--output")
    if not command:
        args.parser.error("no command to record")
    try:
        trace, status = record(command, args.output)
    except RecordError as error:
        print(f"python -m bsa record: {error}", file=sys.stderr)
        return error.status
    summary = _summary(trace, status)
    print(f"python -m bsa record: {summary}; in {args.output}", file=sys.stderr)
    return status


def _summary(trace, status):
    failed = f"; the program failed with status {status}" if status else ""
    if not trace:
        return f"no events: the program never called malloc{failed}"
    cut = ", cut short: no room for more" if trace.meta["cut"] else ""
    return (
        f"{counted(len(trace), 'event')}, {counted(trace.threads, 'thread')}, "
        f"peak {format_size(trace.peak[1])}{cut}{failed}"
    )
