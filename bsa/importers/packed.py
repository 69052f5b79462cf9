"""Compressed files: zip archives of one file, gzip and xz; recognised by their first bytes.

All are read piece by piece. decompress() of these modules would copy all that is left after each
member, so that many small ones take quadratic time; and some kilobytes can be made to unpack to more
than any memory. So there is a bound: MOST bytes, or more if the file itself is large.
"""

import gzip
import io
import struct
import zipfile
import zlib

MOST = 1 << 30  # bytes that any file may unpack to
RATIO = 100  # times its own size; texts of traces are compressed to a tenth, rarely to a fiftieth
_PIECE = 1 << 20

_ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ZSTD = b"\x28\xb5\x2f\xfd"


def unpacked(data):
    """The bytes that were compressed, or `data` itself. ValueError: damaged, or not to be read."""
    for start, unpack in _UNPACK.items():
        if data.startswith(start):
            return unpack(data)
    return data


def _read(file, data):
    """All that the file unpacks to, of which `data` are the bytes."""
    most, pieces, size = max(MOST, RATIO * len(data)), [], 0
    while piece := file.read(_PIECE):
        size += len(piece)
        if size > most:
            raise ValueError(
                f"offset 0: {len(data):,} bytes unpack to more than {most:,}: unpack them yourself "
                "if they are to be read"
            )
        pieces.append(piece)
    return b"".join(pieces)


def _unzip(data):
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            with archive.open(_only_member(archive)) as file:
                return _read(file, data)
    # What zipfile raises for bad archives, beside ValueError.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, struct.error) as error:
        raise ValueError(f"damaged zip archive: {error}") from None


def _only_member(archive):
    members = [info for info in archive.infolist() if not info.is_dir()]
    if len(members) != 1:
        raise ValueError(f"zip archive of {len(members)} files, expected one")
    if members[0].compress_type not in _ZIP_METHODS:
        raise ValueError(f"zip archive with compression method {members[0].compress_type}")
    return members[0]


def _gunzip(data):
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return _read(file, data)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise ValueError(f"damaged gzip file: {error}") from None


def _unxz(data):
    try:
        import lzma  # which not every Python was built with
    except ImportError:
        raise ValueError("offset 0: compressed by xz, which this Python cannot read") from None
    try:
        with lzma.LZMAFile(io.BytesIO(data)) as file:
            return _read(file, data)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"damaged xz file: {error}") from None


def _refuse_zstd(data):
    raise ValueError(
        "offset 0: compressed by zstd, which is not read here: run `zstd -d` on it first"
    )


_UNPACK = {
    b"PK\x03\x04": _unzip,
    b"\x1f\x8b": _gunzip,
    b"\xfd7zXZ\x00": _unxz,
    _ZSTD: _refuse_zstd,
}
