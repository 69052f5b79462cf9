"""Texts of Android's memory_replay (system/extras/memory_replay), one event a line.

    186: malloc 0xb6027400 1024
    186: free 0xb6027400

Format and reader: csrc/hosted/trace_text.c. Addresses become ids, threads are numbered by first
appearance; requests that failed and frees of NULL are counted as skipped. Lost: the times at the
end of lines. What does not fit together is skipped and counted unless the caller refuses it; a
double free counts as one of an unknown block.
"""

import re
from bisect import bisect_left

from bsa import _core
from bsa.importers.history import odd_counts

BAD = "skip"

_START = re.compile(rb"[0-9]+:")
_NEWLINE = re.compile(rb"\n")


def recognises(data):
    return _START.match(data) is not None


def read(data, bad):
    """The columns and meta of a text of memory_replay."""
    *columns, facts = _core._read_memory_replay(data)
    odd = odd_counts(facts)
    if bad == "raise" and odd:
        raise ValueError(
            f"line {_first_odd_line(data)}: expected a whole history, found {odd} from here"
        )
    return columns, facts


def _first_odd_line(data):
    """By bisection over the beginnings of the text: a history that is odd stays odd."""
    ends = [match.end() for match in _NEWLINE.finditer(data)]
    return 1 + bisect_left(ends, True, key=lambda end: _is_odd(data[:end]))


def _is_odd(text):
    return odd_counts(_core._read_memory_replay(text)[-1]) != ""
