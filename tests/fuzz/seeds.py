"""Seeds for the fuzz targets: `seeds.py FOLDER` writes a folder of files for each target into FOLDER.

Random bytes are programs already; the seeds for the readers of traces are what the readers expect, so that a fuzzer need
not find out their formats. tests/fuzz/found holds what once failed.
"""

import pathlib
import random
import struct
import sys

TARGETS = ("operations", "regions", "traces")
FOUND = pathlib.Path(__file__).parent / "found"

HEADER = struct.Struct("=8sIIiIQQ")  # struct bsa_record_header
EVENT = struct.Struct("=QQQ")  # struct bsa_record_event
HEADER_BYTES = 65536

# The first byte of an input to fuzz_traces.c.
RECORDING, SPREAD_RECORDING, TEXT, COLUMNS = range(4)

TEXT_SEED = b"""\
186: malloc 0xb6027400 1024
186: calloc 0xb6027800 4 16
187: realloc 0xb6028000 0xb6027400 64
187: memalign 0xb6029000 64 256 1000 2000
186: realloc 0x0 0xb6028000 4096
186: free 0xb6029000 17
186: free 0x0
187: thread_done 0x0
"""


def recording(events, claimed=None):
    """Header and events of a raw recording, without what lies between them."""
    backed = HEADER_BYTES + len(events) * EVENT.size
    header = HEADER.pack(
        b"BSA\x1arec\n", 1, 0x01020304, 1, 0, len(events) if claimed is None else claimed, backed
    )
    return header, b"".join(EVENT.pack(*event) for event in events)


def tag(kind, align_code=0, thread=0):
    return thread << 32 | align_code << 8 | kind


def trace_seeds():
    malloc, calloc, free, begin, end = range(1, 6)
    events = [
        (0x1000, 100, tag(malloc, thread=1)),
        (0x2000, 5000, tag(calloc, align_code=7, thread=2)),
        (0x1000, 200, tag(begin, thread=1)),
        (0x3000, 10, tag(malloc, thread=2)),
        (0x1800, 200, tag(end, thread=1)),
        (0x2000, 0, tag(begin, thread=2)),
        (0, 0, tag(end, thread=2)),
        (0, 0, 0),
        (0x3000, 0, tag(free, thread=1)),
    ]
    header, body = recording(events)
    cut_header, _ = recording(events, claimed=len(events) + 5)
    yield bytes([RECORDING]) + header + bytes(HEADER_BYTES - len(header)) + body
    yield bytes([SPREAD_RECORDING]) + header + body
    yield bytes([SPREAD_RECORDING]) + cut_header + body
    yield bytes([TEXT]) + TEXT_SEED
    yield bytes([TEXT]) + TEXT_SEED.replace(b"\n", b"\r\n")
    yield bytes([TEXT]) + TEXT_SEED[:-1]
    # 72: an operation, an id and a size of 1, 1 and 2 bytes, no alignment, a thread.
    columns = [(72 + 129, 0, 100), (72 + 130, 1, 9000), (72 + 131, 0, 5), (72 + 132, 1, 0)]
    yield bytes([COLUMNS]) + b"".join(struct.pack("=BBHB", *column, 0) for column in columns)


def random_seeds(target, count, longest):
    """Programs of growing length, always the same ones."""
    generator = random.Random(target)
    for i in range(count):
        yield generator.randbytes(longest * (i + 1) // count)


def seeds(target):
    if target == "traces":
        yield from trace_seeds()
        for start, length in ((COLUMNS, 400), (SPREAD_RECORDING, 200), (TEXT, 50)):
            for seed in random_seeds(f"traces {start}", 4, length):
                yield bytes([start]) + seed
    else:
        yield from random_seeds(target, 40, 1200)
    for path in sorted(FOUND.glob(f"{target}-*")):
        yield path.read_bytes()


def write(target, folder):
    """Write the seeds of a target into its folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, seed in enumerate(seeds(target)):
        paths.append(folder / f"seed-{i}")
        paths[-1].write_bytes(seed)
    return paths


if __name__ == "__main__":
    for name in TARGETS:
        write(name, pathlib.Path(sys.argv[1]) / name)
