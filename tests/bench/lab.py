"""`make bench-lab`: what the fragmentation lab costs, beside what it may cost.

Replays with 1000 samples and without, taking turns, on the traces in tests/traces; a report of a
trace of 2.4 million events; and the HTML that Jupyter gets of heaps of any size.
"""

import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import bsa
from bsa import synthetic
from bsa.sizing import comfortable, smallest_heap

TURNS = 9
SAMPLES = 1000
TRACES = pathlib.Path(__file__).resolve().parent.parent / "traces"
HEAPS = (1 << 20, 1 << 26, 1 << 32, 1 << 38)


def main():
    replays()
    report()
    html()


# ---- Replays ----


def replays():
    print(f"{'trace':<16} {'events':>10} {'M events/s':>12} {f'with {SAMPLES} samples':>20}")
    for path in sorted(TRACES.glob("*.bsa")):
        trace = bsa.Trace.load(path)
        plain, sampled = replay_times(trace)
        rate = len(trace) / min(plain) / 1e6
        times = statistics.median(b / a for a, b in zip(plain, sampled))
        print(f"{path.name:<16} {len(trace):>10,} {rate:>12.1f} {times:>14.2f} times")
    print("wanted: at least 20, at most 1.3 times\n")


def replay_times(trace):
    """(seconds of each replay without samples, of each with)."""
    cpus = max(trace.threads, 1)
    size = comfortable(2 * smallest_heap(trace, cpus=cpus))
    turns = [
        [seconds_of_replay(trace, size, cpus, samples) for samples in (0, SAMPLES)]
        for _ in range(TURNS)
    ]
    return tuple(zip(*turns))


def seconds_of_replay(trace, size, cpus, samples):
    with bsa.Allocator(size, cpus=cpus) as heap:
        start = time.perf_counter()
        bsa.replay(trace, heap, samples=samples)
        return time.perf_counter() - start


# ---- The report ----


def report():
    """Of a trace that is at its peak at the end, when most is to be drawn."""
    churn = synthetic.fill_and_churn(2_200_000, live=30_000, seed=1)
    trace = bsa.Trace.merged([churn, synthetic.ramp(400_000, seed=2)[:200_000]])
    with tempfile.TemporaryDirectory() as folder:
        source, page = pathlib.Path(folder, "churn.bsa"), pathlib.Path(folder, "page.html")
        trace.save(source)
        times = [seconds_of_report(source, page) for _ in range(3)]
        size = page.stat().st_size
    of_cpus = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (of_cpus.ru_utime + of_cpus.ru_stime) / len(times)
    print(
        f"report of {len(trace):,} events: {min(times):.1f} s ({cpu:.1f} s of all CPUs), "
        f"{size / 1e6:.2f} MB"
    )
    print("wanted: under 10 s, under 5 MB\n")


def seconds_of_report(source, page):
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "bsa", "report", source, "-o", page],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


# ---- What Jupyter shows ----


def html():
    trace = bsa.Trace.load(TRACES / "gcc.bsa")
    for size in HEAPS:
        with bsa.Allocator(size, cpus=1) as heap:
            timeline = bsa.replay(trace, heap, samples=SAMPLES, bad="skip")
            shown = {"Allocator": heap, "Section": heap.sections[0], "Timeline": timeline}
            sizes = [f"{name} {len(it._repr_html_()):,}" for name, it in shown.items()]
        print(f"HTML for a heap of {size >> 20:,} MiB: {', '.join(sizes)} bytes")
    comparison = bsa.compare(trace, {"4k": {}, "16k": {"page_size": 16384}})
    print(f"Trace {len(trace._repr_html_()):,}, Comparison {len(comparison._repr_html_()):,} bytes")
    print("wanted: under 300,000")


if __name__ == "__main__":
    main()
