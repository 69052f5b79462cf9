"""CSV files: a line of column names, then an event a line.

    op,id,size,align,thread
    alloc,0,512,0,0
    realloc,0,640,0,1
    free,0,0,0,1

`op` is alloc (or malloc), zalloc (or calloc), realloc, free, or the number of a TraceOp. `id` is
any number that is the block's own while it lives, decimal or hexadecimal (0x...): an id or its
address. Ids and threads stay as they are unless they are too large for a trace of that length; then
they are numbered anew. `size` may be empty for a free, `align` and `thread` always; both columns
may be missing, and other columns are passed over. Columns come in any order. Commas, quotes and
line ends as in RFC 4180, in UTF-8.

Written: the five columns above; a trace that is read again is equal, but for `meta`.
"""

import csv
import io
from itertools import islice

from bsa.importers.history import FREE, NAMES, OPS, Events, expected, settle

BAD = "raise"  # a complete description: what does not fit together is a mistake

_OPS = {**OPS, **{str(op): op for op in NAMES}}
_COLUMNS = ("op", "id", "size", "align", "thread")
_REQUIRED = _COLUMNS[:3]
_CHUNK = 1 << 16  # rows, converted column by column
_LONGEST_HEADER = 4096


def recognises(data):
    header = data[:_LONGEST_HEADER].partition(b"\n")[0]
    try:
        return {"op", "id"} <= set(_names(header.decode("utf-8-sig").split(",")))
    except UnicodeDecodeError:
        return False


def _names(row):
    return [name.strip().strip('"').lower() for name in row]


def read(data, bad):
    """The columns and meta of a CSV file."""
    if data and not data.endswith(b"\n"):
        line = data.count(b"\n") + 1
        raise ValueError(f"line {line}: truncated: it has no newline")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"offset {error.start}: expected text in UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns, counts = settle(_events(reader), bad, keep=True)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: expected CSV: {error}") from None
    return columns, counts


def _events(reader):
    names = _names(next(reader, []))
    if not set(_REQUIRED) <= set(names) or len(set(names)) != len(names):
        found = ",".join(names)
        raise expected(1, "the column names op, id and size, each once", found)
    places = [names.index(name) if name in names else None for name in _COLUMNS]
    events = Events()
    while True:
        line = reader.line_num + 1
        rows = list(islice(reader, _CHUNK))
        if not rows:
            return events
        try:
            _add_columns(events, rows, places, len(names), line, reader.line_num)
        except (ValueError, KeyError, OverflowError):
            _add_rows(events, rows, places, len(names), line)


def _add_columns(events, rows, places, width, line, last):
    """Many rows at once, if they hold nothing but numbers. Raises before anything is added."""
    if set(map(len, rows)) != {width} or last - line + 1 != len(rows):
        raise ValueError("left to _add_rows")
    by_place = list(zip(*rows))
    op, id, size, align, thread = (by_place[p] if p is not None else None for p in places)
    added = Events()
    added.op.extend(map(_OPS.__getitem__, op))
    added.block.extend(_whole_numbers(id))
    added.size.extend(map(int, size))
    added.align.extend(map(int, align) if align else bytes(len(rows)))
    added.thread.extend(map(int, thread) if thread else bytes(len(rows)))
    added.place.extend(range(line, last + 1))
    if any(value & (value - 1) for value in set(added.align)):
        raise ValueError("left to _add_rows")
    for column, more in zip(events.columns(), added.columns()):
        column.extend(more)


def _whole_numbers(texts):
    try:
        return list(map(int, texts))
    except ValueError:
        return [int(text, 16 if text[:2] in ("0x", "0X") else 10) for text in texts]


def _add_rows(events, rows, places, width, line):
    """Row by row: what may be empty, and what is wrong with the first wrong row."""
    for row in rows:
        if len(row) != width:
            found = ",".join(row)
            raise expected(line, f"{width} fields", found)
        fields = ["" if place is None else row[place].strip() for place in places]
        events.add(line, *_event(line, *fields))
        line += 1 + sum(field.count("\n") for field in row)


def _event(line, op, id, size, align, thread):
    code = _OPS.get(op.lower())
    if code is None:
        raise expected(line, "an operation: alloc, zalloc, realloc or free", op)
    size = "0" if size == "" and code == FREE else size
    alignment = _number(line, "an alignment", align or "0", 32)
    if alignment & (alignment - 1):
        raise expected(line, "an alignment that is 0 or a power of two", align)
    return (
        code,
        _number(line, "an id", id, 64),
        _number(line, "a size", size, 64),
        alignment,
        _number(line, "a thread", thread or "0", 64),
    )


def _number(line, what, text, bits):
    try:
        (value,) = _whole_numbers([text])
    except ValueError:
        raise expected(line, what, text) from None
    if not 0 <= value < 1 << bits:
        raise expected(line, f"{what} from 0 to 2^{bits} - 1", text)
    return value


def encode(trace):
    """The bytes of a CSV file."""
    rows = zip(map(NAMES.__getitem__, trace.op), trace.id, trace.size, trace.align, trace.thread)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows)
    return text.getvalue().encode("ascii")
