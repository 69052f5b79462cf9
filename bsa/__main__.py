"""The command line: `python -m bsa record | replay | report | info | bench | demo`.

Each command is a module with add_parser(subparsers) and run(args) -> exit status. What the user can
cause is one line on stderr and exit status 1 (2 for a wrong command line), never a traceback.
"""

import argparse
import difflib
import os
import sys

from bsa import bench, demo, info, record, replay_command, report
from bsa._core import AllocError

_COMMANDS = (record, replay_command, report, info, bench, demo)
_INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line; --help tells the rest."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def refuse(self, unknown):
        """Exit because of arguments that it does not know."""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown[0])}")

    def _meant(self, word):
        """Which option that may be, if it is like one."""
        known = [name for name in self._option_string_actions if name not in ("-h", "--help")]
        names = {name.strip("-"): name for name in known}
        close = difflib.get_close_matches(word.partition("=")[0].strip("-"), names, 1)
        return f"; did you mean {names[close[0]]}?" if close else ""


def main(argv=None):
    """Run one command; its exit status."""
    try:
        args, unknown = _parser().parse_known_args(argv)
        if unknown:
            args.parser.refuse(unknown)
        return _run(args)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(args):
    sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold anything
    try:
        status = args.run(args)
        sys.stdout.flush()  # a closed pipe shows here, not at exit
        return status
    except BrokenPipeError:
        return _leave_broken_pipe()
    except (AllocError, OSError, ValueError, MemoryError) as error:
        print(f"python -m bsa {args.command}: {str(error) or 'out of memory'}", file=sys.stderr)
        return 1


def _parser():
    parser = _Parser(
        prog="python -m bsa",
        description="See where a program's memory goes.",
        epilog="To begin: python3 -m bsa demo. Then record a program of yours, and replay the "
        "trace: python3 -m bsa COMMAND --help tells how.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(subparsers)
    for subparser in subparsers.choices.values():
        subparser.set_defaults(parser=subparser)
    return parser


def _leave_broken_pipe():
    """The reader has gone (`| head`): end quietly, also when Python flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == "__main__":
    sys.exit(main())
