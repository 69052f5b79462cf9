"""One process of the Python level: `python -m bsa.bench.worker TURN SECONDS TRACE...` prints JSON.

Each thing measured is a function of a number of times, with a loop of its own, so the loop's cost
is in every figure alike. Time is the processor's time of this thread.
"""

import ctypes
import importlib.util
import json
import mmap
import multiprocessing.heap
import sys
import time
from importlib.metadata import version
from multiprocessing.shared_memory import SharedMemory

import bsa
from bsa.bench.python_level import BSA, BSA_BLOCK, REFERENCE, SIZES
from bsa.bench.results import Row
from bsa.sizing import comfortable, smallest_heap
from bsa.trace import Trace
from bsa.units import parse_size

HEAP = 256 << 20
MANY = 10_000
SAMPLES = 1000
SETUP = 64 << 30
HAS_NUMPY = importlib.util.find_spec("numpy") is not None


def nanoseconds(function, seconds):
    """Of one time. Runs longer and longer, until a run takes at least `seconds`: that one counts."""
    times = 1
    while True:
        start = time.thread_time_ns()
        function(times)
        elapsed = time.thread_time_ns() - start
        if elapsed >= seconds * 1e9:
            return elapsed / times
        times *= 2


def repeated(action, argument):
    """A function that calls action(argument) so many times and drops what it returns."""

    def run(times):
        for _ in range(times):
            action(argument)

    return run


# ---- Getting memory of a size and giving it back ----


def malloc_and_free(heap, size):
    def run(times):
        malloc, free = heap.malloc, heap.free
        for _ in range(times):
            free(malloc(size))

    return run


def arrays(size):
    import numpy

    def run(times):
        empty, kind = numpy.empty, numpy.uint8
        for _ in range(times):
            empty(size, kind)

    return run


def ctypes_arrays(size):
    kind = ctypes.c_char * size

    def run(times):
        for _ in range(times):
            kind()

    return run


def mappings(size):
    def run(times):
        make = mmap.mmap
        for _ in range(times):
            make(-1, size)

    return run


def shared_memory(size):
    def run(times):
        for _ in range(times):
            memory = SharedMemory(create=True, size=size)
            memory.close()
            memory.unlink()

    return run


def ways(heap, size):
    """Candidate to function."""
    found = {
        BSA: malloc_and_free(heap, size),
        BSA_BLOCK: repeated(heap.alloc, size),
        REFERENCE: repeated(bytearray, size),
    }
    if HAS_NUMPY:
        found["np.empty"] = arrays(size)
    found["ctypes"] = ctypes_arrays(size)
    found["mmap"] = mappings(size)
    found["BufferWrapper"] = repeated(multiprocessing.heap.BufferWrapper, size)
    found["SharedMemory"] = shared_memory(size)
    return found


def sizes(heap):
    """Row and its ways, for each size."""
    for name in SIZES:
        what = "so much allocated and given back at once; a heap of 256 MiB, nothing else in it"
        yield Row(name, what), ways(heap, parse_size(name))


# ---- Views and many at once ----


def frombuffer_of_new(heap, size):
    import numpy

    def run(times):
        alloc, frombuffer, kind = heap.alloc, numpy.frombuffer, numpy.uint8
        for _ in range(times):
            frombuffer(alloc(size), kind)

    return run


def frombuffer_of(buffer):
    import numpy

    def run(times):
        frombuffer, kind = numpy.frombuffer, numpy.uint8
        for _ in range(times):
            frombuffer(buffer, kind)

    return run


def malloc_many(heap):
    def run(times):
        for _ in range(times):
            heap.free_many(heap.malloc_many(MANY, 64))

    return run


def bytearrays(times):
    for _ in range(times):
        [bytearray(64) for _ in range(MANY)]


def views(heap):
    """Row and two functions: bsa's and the one for bytearray."""
    block = heap.alloc(64)
    what = "a memoryview of a Block, or of a bytearray, made and dropped"
    pair = {BSA: repeated(memoryview, block), REFERENCE: repeated(memoryview, bytearray(64))}
    yield Row("memoryview", what), pair
    for name in ("64 B", "1 MiB") if HAS_NUMPY else ():
        size = parse_size(name)
        what = "alloc and np.frombuffer, both dropped; or np.frombuffer of a bytearray at hand"
        pair = {BSA: frombuffer_of_new(heap, size), REFERENCE: frombuffer_of(bytearray(size))}
        yield Row(f"frombuffer {name}", what), pair


def many(heap):
    """Row and functions that do MANY at a time."""
    what = f"malloc_many and free_many of {MANY:,} objects of 64 B, or as many bytearrays: each"
    yield Row("many", what), {BSA: malloc_many(heap), REFERENCE: bytearrays}


# ---- Large heaps, replays ----


def setup_time():
    """Nanoseconds; closing does not count."""
    start = time.thread_time_ns()
    heap = bsa.Allocator(SETUP)
    elapsed = time.thread_time_ns() - start
    heap.close()
    return elapsed


def replay_speed(trace, size, samples):
    """Million events a second."""
    with bsa.Allocator(size, cpus=max(trace.threads, 1)) as heap:
        start = time.thread_time_ns()
        bsa.replay(trace, heap, samples=samples)
        return len(trace) / (time.thread_time_ns() - start) * 1e3


def best(function, seconds, choose):
    """The best of as many figures as fit into that time, three at least."""
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end or len(found) < 3:
        found.append(function())
    return choose(found)


def replays(paths, seconds):
    """Row and figure for each trace, without samples and with."""
    for path in paths:
        trace = Trace.load(path)
        size = comfortable(2 * smallest_heap(trace, cpus=max(trace.threads, 1)))
        name = path.rpartition("/")[2].removesuffix(".bsa")
        for samples, with_samples in ((0, ""), (SAMPLES, f", {SAMPLES} samples")):
            what = f"bsa.replay of the trace{with_samples}"
            row = Row(f"replay {name}{with_samples}", what, "M events/s")
            speed = best(lambda: replay_speed(trace, size, samples), seconds, max)
            yield row, speed


# ---- The process ----


def entry(row, candidate, **figure):
    return {"row": row.name, "what": row.what, "unit": row.unit, "candidate": candidate, **figure}


def in_turn(row, functions, turn, seconds, per=1):
    """Entries of everyone, another one first in each turn."""
    everyone = list(functions.items())
    first = turn % len(everyone)
    for candidate, function in everyone[first:] + everyone[:first]:
        try:
            yield entry(row, candidate, value=nanoseconds(function, seconds) / per)
        except OSError as error:
            yield entry(row, candidate, left_out=str(error))


def figures(turn, seconds, paths):
    """All entries."""
    with bsa.Allocator(HEAP) as heap:
        for row, functions in (*sizes(heap), *views(heap)):
            yield from in_turn(row, functions, turn, seconds)
        for row, functions in many(heap):
            yield from in_turn(row, functions, turn, seconds, per=MANY)
    row = Row("set-up", "an Allocator of 64 GiB, reserved but not present, made")
    yield entry(row, BSA, value=best(setup_time, seconds, min))
    for row, speed in replays(paths, seconds):
        yield entry(row, BSA, value=speed)


def assert_refusals():
    """The checks are on in the very build that is measured."""
    with bsa.Allocator(HEAP) as heap:
        address = heap.malloc(64)
        for wrong in (address + 8, id(heap), heap.sections[0].region_start):
            _expect_refusal(heap, wrong)
        heap.free(address)
        _expect_refusal(heap, address)


def _expect_refusal(heap, address):
    try:
        heap.free(address)
    except (ValueError, LookupError):
        return
    raise AssertionError(f"free({address:#x}) was not refused")


def main(turn, seconds, *paths):
    assert_refusals()
    python, numpy = sys.version.split()[0], version("numpy") if HAS_NUMPY else None
    candidates = dict.fromkeys((BSA, BSA_BLOCK), bsa.__version__) | {REFERENCE: python}
    candidates |= {"np.empty": numpy} if numpy else {}
    candidates |= dict.fromkeys(("ctypes", "mmap", "BufferWrapper", "SharedMemory"), python)
    absent = {} if numpy else {"np.empty": "NumPy is not installed"}
    found = list(figures(int(turn), float(seconds), paths))
    checks = ["double frees, interior and foreign addresses are refused"]
    result = {"candidates": candidates, "absent": absent, "checks": checks, "figures": found}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
