"""Saved traces: decoding and encoding them. Files of other tools are for bsa.importers.

A saved trace, version 1; numbers are little-endian:

    8 bytes   magic, 89 62 73 61 0d 0a 1a 0a: a transfer as text damages it visibly
    4 bytes   version
    4 bytes   length of the header
    4 bytes   CRC-32 of the header
    header    JSON: events, columns ([name, bytes in the file, their CRC-32] each) and meta
    columns   one after the other, to the last byte of the file

A column is stored as byte planes (the lowest bytes of all numbers, then the next ones, ...)
compressed by zlib: the planes of high bytes are nearly all zero. Nothing is believed before it is
checked: lengths against the file's, contents against their checksums; zlib stops at the expected
length.

Every function here raises ValueError for bad data, with the place in its text.
"""

import json
import struct
import sys
import zlib

MAGIC = b"\x89bsa\r\n\x1a\n"
VERSION = 1
BAD = "raise"  # whatever the caller says: a saved trace is a possible history, or damaged

_PROLOGUE = struct.Struct("<8sIII")
_COLUMNS = {"op": 1, "id": 4, "size": 8, "align": 4, "thread": 4}


def recognises(data):
    return data.startswith(MAGIC)


def read(data, bad):
    """The columns and meta of a saved trace."""
    return decode(data)


# ---- Decoding ----


def decode(data):
    """The columns and meta of a saved trace."""
    header, offset = _decode_header(data)
    events, entries, meta = _header_fields(header)
    columns = []
    for name, (length, checksum) in entries.items():
        packed = _part(data, offset, length, checksum, f"column {name!r}")
        columns.append(_decode_column(packed, name, events, offset))
        offset += length
    if offset != len(data):
        raise ValueError(f"offset {offset}: expected the end of the file")
    return columns, meta


def _decode_header(data):
    if not recognises(data):
        raise ValueError(f"offset 0: expected a saved trace, found {data[:16]!r}")
    if len(data) < _PROLOGUE.size:
        raise ValueError(f"offset {len(data)}: truncated before the header")
    _, version, length, checksum = _PROLOGUE.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"offset 8: trace file of version {version}, expected {VERSION}")
    text = _part(data, _PROLOGUE.size, length, checksum, "header")
    try:
        return json.loads(text), _PROLOGUE.size + length
    except (ValueError, RecursionError):
        raise ValueError(f"offset {_PROLOGUE.size}: the header is no JSON") from None


def _part(data, offset, length, checksum, name):
    if length > len(data) - offset:
        raise ValueError(f"offset {len(data)}: truncated inside {name}")
    part = data[offset : offset + length]
    if zlib.crc32(part) != checksum:
        raise ValueError(f"offset {offset}: {name} is damaged: wrong checksum")
    return part


def _header_fields(header):
    """(events, {column: (length, checksum)}, meta) of a header that may be any JSON value."""
    match header:
        case {"events": int(events), "columns": [*entries], "meta": {**meta}} if events >= 0:
            return events, _column_entries(entries), meta
    raise ValueError(f"offset {_PROLOGUE.size}: the header lacks events, columns or meta")


def _column_entries(entries):
    found = {}
    for entry in entries:
        match entry:
            case [str(name), int(length), int(checksum)] if length >= 0:
                found[name] = (length, checksum)
    if list(found) != list(_COLUMNS) or len(entries) != len(_COLUMNS):
        raise ValueError(f"offset {_PROLOGUE.size}: expected the columns {', '.join(_COLUMNS)}")
    return found


def _decode_column(packed, name, events, offset):
    expected = events * _COLUMNS[name]
    unpacker = zlib.decompressobj()
    try:
        # One byte more than expected, which shows what is too long and lets zlib see its end.
        planes = unpacker.decompress(packed, min(expected, sys.maxsize - 1) + 1)
    except zlib.error as error:
        raise ValueError(f"offset {offset}: column {name!r} is damaged: {error}") from None
    if len(planes) != expected or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"offset {offset}: column {name!r} does not hold {events} numbers")
    return _from_planes(planes, _COLUMNS[name])


# ---- Encoding ----


def encode(columns, meta):
    """The bytes of a saved trace."""
    packed = [
        zlib.compress(_to_planes(column, width), 9)
        for column, width in zip(columns, _COLUMNS.values())
    ]
    entries = [[name, len(part), zlib.crc32(part)] for name, part in zip(_COLUMNS, packed)]
    fields = {"events": len(columns[0]), "columns": entries, "meta": meta}
    header = json.dumps(fields).encode("ascii")
    prologue = _PROLOGUE.pack(MAGIC, VERSION, len(header), zlib.crc32(header))
    return b"".join([prologue, header, *packed])


def _byte_order(width):
    """Indices of a number's bytes in memory, lowest first."""
    return range(width) if sys.byteorder == "little" else reversed(range(width))


def _to_planes(column, width):
    return b"".join(column[k::width] for k in _byte_order(width))


def _from_planes(planes, width):
    column = bytearray(len(planes))
    events = len(planes) // width
    for plane, k in enumerate(_byte_order(width)):
        column[k::width] = planes[plane * events : (plane + 1) * events]
    return bytes(column)
