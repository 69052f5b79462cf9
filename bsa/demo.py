"""`python -m bsa demo`: all of it at once, on a program that is certainly there: this Python.

Records it compiling a temporary copy of some of its own standard library, replays the recording,
and leaves the trace and the picture.
"""

import email
import json
import pathlib
import shutil
import sys
import tempfile

from bsa import output_file
from bsa.record import record
from bsa.replay_command import report
from bsa.trace import RecordError, Trace

_PACKAGES = (email, json)

_NEXT = """\
The documentation (docs/replay.md) explains the table and the picture.
Next, a program of yours:
    python3 -m bsa record -o work.bsa -- COMMAND
    python3 -m bsa replay work.bsa -o work.svg"""


def add_parser(subparsers):
    """Add `demo` to the commands of `python -m bsa`."""
    parser = subparsers.add_parser(
        "demo",
        help="record a real program, replay it and draw the picture",
        description="Record Python compiling some of its library, replay that, draw the picture. "
        "Takes a few seconds.",
        epilog="Example: python3 -m bsa demo -o /tmp/demo",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=pathlib.Path,
        default=pathlib.Path("demo"),
        help="the folder for the trace and the picture, made if need be (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args):
    """The command `demo`: 1 if the program could not be recorded."""
    args.output.mkdir(parents=True, exist_ok=True)
    trace_file, picture_file = args.output / "compileall.bsa", args.output / "picture.svg"
    output_file.check(picture_file)
    print(f"Recording: {sys.executable} -m compileall, on a copy of {_names()} ...", flush=True)
    status = _record_compileall(trace_file)
    if status != 0:
        raise RecordError(f"compileall failed with status {status}")
    report(Trace.load(trace_file), "python3 -m compileall", picture_file)
    print(f"The trace:   {trace_file}\n\n{_NEXT}")
    return 0


def _names():
    return " and ".join(package.__name__ for package in _PACKAGES)


def _record_compileall(trace_file):
    """Its exit status."""
    with tempfile.TemporaryDirectory(prefix="bsa-demo-") as folder:
        for package in _PACKAGES:
            source = pathlib.Path(package.__file__).parent
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, pathlib.Path(folder, package.__name__), ignore=ignored)
        command = [sys.executable, "-m", "compileall", "-q", "-f", folder]
        return record(command, trace_file).status
