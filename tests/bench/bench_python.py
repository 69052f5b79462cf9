"""What allocating costs from Python, as ratios to creating and dropping a bytearray in the same run.

`python tests/bench/bench_python.py`. Each number is the median of several rounds, in which the candidates
take turns; next to it the smallest and the largest. Besides: the time and memory that setting up a large
heap takes, and the share of metadata.
"""

import mmap
import resource
import statistics
import time

import bsa

ROUNDS = 9
CALLS = 100_000
SIZES = (16, 64, 1024, 65536, 1 << 20)


def nanoseconds(function, calls=CALLS):
    """One call of function(times), per time."""
    start = time.perf_counter_ns()
    function(calls)
    return (time.perf_counter_ns() - start) / calls


def make_bytearrays(size):
    def run(times):
        make = bytearray
        for _ in range(times):
            make(size)

    return run


def malloc_and_free(heap, size):
    def run(times):
        malloc, free = heap.malloc, heap.free
        for _ in range(times):
            free(malloc(size))

    return run


def alloc_and_drop(heap, size):
    def run(times):
        alloc = heap.alloc
        for _ in range(times):
            alloc(size)

    return run


def line(name, values, reference):
    ratios = sorted(value / base for value, base in zip(values, reference, strict=True))
    return (
        f"{name:<28} {statistics.median(values):>9.1f} ns  "
        f"{statistics.median(ratios):>6.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def compare_allocations():
    print(f"{'':<28} {'median':>12}  ratio to bytearray(64)")
    with bsa.Allocator(256 << 20) as heap:
        candidates = {"bytearray(64)": make_bytearrays(64)}
        for size in SIZES:
            candidates[f"malloc({size}) + free"] = malloc_and_free(heap, size)
            candidates[f"alloc({size}), dropped"] = alloc_and_drop(heap, size)
        times = {name: [] for name in candidates}
        for _ in range(ROUNDS):
            for name, function in candidates.items():
                times[name].append(nanoseconds(function))
        for name, values in times.items():
            print(line(name, values, times["bytearray(64)"]))
        large = [nanoseconds(make_bytearrays(1 << 20), 200) for _ in range(ROUNDS)]
    for name in ("malloc(1048576) + free", "alloc(1048576), dropped"):
        ratio = statistics.median(large) / statistics.median(times[name])
        print(f"bytearray(1048576) takes {ratio:.0f} times as long as {name}")


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def measure_setup(size):
    times, touched = [], []
    for _ in range(ROUNDS):
        memory_before, start = resident_bytes(), time.perf_counter()
        heap = bsa.Allocator(size)
        times.append((time.perf_counter() - start) * 1e6)
        touched.append(resident_bytes() - memory_before)
        heap.close()
    print(
        f"set-up of {size >> 30} GiB: {statistics.median(times):.0f} us "
        f"({min(times):.0f} to {max(times):.0f}), {max(touched) >> 10} KiB touched at most"
    )


def measure_metadata(size):
    with bsa.Allocator(mmap.mmap(-1, size)) as heap:
        share = heap.metadata_bytes / size
    print(f"metadata of {size >> 20} MiB at 4 KiB pages: {100 * share:.2f} %")


if __name__ == "__main__":
    compare_allocations()
    for gibibytes in (16, 64):
        measure_setup(gibibytes << 30)
    for mebibytes in (64, 1024):
        measure_metadata(mebibytes << 20)
