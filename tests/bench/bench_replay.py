"""Events per second of a replay in C: `python tests/bench/bench_replay.py [TRACE ...]`.

Without arguments, the traces in tests/traces. Each is replayed into a fresh heap that has room
enough; the best of several runs counts, the heap's set-up does not. Beside it: the time of one
sample, and how many times longer a replay takes with 1000 of them (at most 1.3 is wanted).
"""

import pathlib
import sys
import time

import bsa
from bsa.sizing import comfortable, smallest_heap
from bsa.trace import Trace

RUNS = 7
SAMPLES = 1000
TRACES = pathlib.Path(__file__).resolve().parent.parent / "traces"


def seconds(trace, size, cpus, samples=0):
    """The fastest of some replays."""
    return min(_one_run(trace, size, cpus, samples) for _ in range(RUNS))


def _one_run(trace, size, cpus, samples):
    with bsa.Allocator(size, cpus=cpus) as heap:
        start = time.perf_counter()
        bsa.replay(trace, heap, samples=samples)
        return time.perf_counter() - start


def measure(path):
    """One line of the table."""
    trace = Trace.load(path)
    cpus = max(trace.threads, 1)
    size = comfortable(2 * smallest_heap(trace, cpus=cpus))
    plain, sampled = (seconds(trace, size, cpus, samples) for samples in (0, SAMPLES))
    rate, sample = len(trace) / plain / 1e6, (sampled - plain) / SAMPLES * 1e6
    return (
        f"{path.name:<32} {len(trace):>10,} {cpus:>7} {rate:>12.1f} {sample:>10.2f} "
        f"{sampled / plain:>6.2f}"
    )


def main():
    paths = [pathlib.Path(argument) for argument in sys.argv[1:]] or sorted(TRACES.glob("*.bsa"))
    print(
        f"{'trace':<32} {'events':>10} {'threads':>7} {'M events/s':>12} {'us/sample':>10} "
        f"{'times':>6}"
    )
    for path in paths:
        print(measure(path))


if __name__ == "__main__":
    main()
