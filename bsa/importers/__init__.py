"""Importers: what reads the trace files of other tools. Trace.load asks this package.

One module a format, whose docstring tells the format, its source, what becomes of it and what is
lost. Each has `recognises(data)`, which looks at the contents; `read(data, bad)`, which returns
columns and meta or raises ValueError with the place; and BAD, how it deals with what does not fit
together unless the caller says (history.py). `rep` and `columns_csv` also write.
"""

from typing import Any

from bsa import trace_file
from bsa.importers import buddyinfo, columns_csv, heaptrack, memory_replay, perf, recording, rep
from bsa.importers.history import BAD
from bsa.importers.packed import unpacked

# In the order in which they are asked: those with the plainest beginning first.
FORMATS: dict[str, Any] = {
    "bsa": trace_file,
    "recording": recording,
    "memory_replay": memory_replay,
    "heaptrack": heaptrack,
    "csv": columns_csv,
    "rep": rep,
    "perf": perf,
}


def check_options(format, bad):
    """ValueError: there is no such format, or no such way to deal with what is bad."""
    if format is not None and format not in FORMATS:
        raise ValueError(f"format {format!r} is none of {', '.join(FORMATS)}")
    if bad is not None and bad not in BAD:
        raise ValueError(f"bad={bad!r} is none of {', '.join(BAD)}")


def read(data, format=None, bad=None):
    """The columns and meta of a trace file, given its bytes."""
    data = unpacked(data)
    name = format or _recognised(data)
    source = FORMATS[name]
    columns, meta = source.read(data, bad or source.BAD)
    return columns, meta if name == "bsa" else {"source": name, **meta}


def _recognised(data):
    if not data:
        raise ValueError("offset 0: the file is empty")
    for name, source in FORMATS.items():
        if source.recognises(data):
            return name
    if buddyinfo.recognises(data):
        raise ValueError(
            "offset 0: expected a trace, found /proc/buddyinfo: BuddyInfo.load reads it"
        )
    raise ValueError(
        f"offset 0: expected a trace of a known format ({', '.join(FORMATS)}), found {data[:16]!r}"
    )
