"""What bsa aims at, figure by figure, and whether a run reached it.

A figure is named by its level, "c" or "python", its row and its candidate.
"""

import itertools
from dataclasses import dataclass
from typing import Callable

import workloads
from bsa.bench.python_level import BSA, BSA_BLOCK, REFERENCE
from bsa.bench.series import Series, geometric_mean
from bsa.bench.table import figure, short, table


@dataclass(frozen=True)
class Goal:
    """`value(results)` is a Series, or None where a figure it needs is missing."""

    name: str
    limit: float
    value: Callable
    at_least: bool = False

    def is_met(self, series):
        return series.median >= self.limit if self.at_least else series.median <= self.limit


def goals(scale):
    """All goals."""
    parts = (_small(), _threads(), _pages(), _growth(scale), _sections(scale), _memory(), _python())
    return list(itertools.chain(*parts))


def as_table(results, wanted):
    """Lines of text: wanted, measured, met. `results`: level to Results."""
    return table(["", "wanted", "measured", ""], [_row(results, goal) for goal in wanted])


def _row(results, goal):
    series = goal.value(results)
    limit = f"{'at least' if goal.at_least else 'at most'} {short(goal.limit)}"
    if series is None or not series.present:
        return [goal.name, limit, "-", "not measured"]
    return [goal.name, limit, figure(series), _verdict(goal, series)]


def _verdict(goal, series):
    if goal.is_met(series):
        return "met"
    missed_by = abs(series.median - goal.limit)
    looks_met = short(series.median) == short(goal.limit)
    return f"NOT MET, by {missed_by:.1g}" if looks_met else "NOT MET"


# ---- The goals ----


def _small():
    mean = "geometric mean of S1, S2, S3 and S4, by {}'s"
    yield Goal(mean.format("mimalloc"), 1.0, _mean_by("mimalloc"))
    yield Goal(mean.format("glibc"), 0.5, _mean_by("glibc"))
    for name in workloads.SMALL:
        yield Goal(f"{name} by mimalloc's", 1.4, _by(name, "mimalloc"))


def _threads():
    yield Goal("M1 by mimalloc's", 1.0, _by("M1", "mimalloc"))
    yield Goal("M2 by the slowest peer's", 1.0, _by_slowest("M2"))


def _pages():
    names = {"B1 merged": 1.7, "B1 held": 0.7, "B2": 1.3, "B3": 1.5}
    for name, limit in names.items():
        ratio = _ratio(("c", name, "bsa"), ("c", "S1", "glibc"))
        yield Goal(f"{name} by glibc's S1", limit, ratio)
    two = _ratio(("c", "B4 two threads", "bsa"), ("c", "B4 one thread", "bsa"))
    yield Goal("B4: two threads by one", 1.3, two)


def _growth(scale):
    for kind in ("S2 alloc", "S2 free", "S4"):
        for name in workloads.size_rows(kind, scale):
            yield Goal(f"{name} by mimalloc's", 1.2, _by(name, "mimalloc"))


def _sections(scale):
    one, *_, most = workloads.section_rows("random", scale)
    more = _difference(("c", most, "bsa"), ("c", one, "bsa"))
    yield Goal(f"{most}, ns more than {one}", 25, more)
    one, *_, most = workloads.section_rows("same", scale)
    yield Goal(f"{most} by {one}", 1.2, _ratio(("c", most, "bsa"), ("c", one, "bsa")))


def _memory():
    for name, limit in zip(workloads.HELD, (0.89, 0.86), strict=True):
        yield Goal(name, limit, _figure("c", name, "bsa"), at_least=True)
    yield Goal("set-up, ns", 200_000, _figure("c", "set-up", "bsa"))
    yield Goal("set-up touches, bytes", 256 << 10, _figure("c", "set-up touches", "bsa"))


def _python():
    def by(row, one, other):
        return _ratio(("python", row, one), ("python", row, other))

    yield Goal("malloc and free of 64 B by bytearray(64)'s", 0.95, by("64 B", BSA, REFERENCE))
    yield Goal("a Block of 64 B by bytearray(64)'s", 0.8, by("64 B", BSA_BLOCK, REFERENCE))
    yield Goal("many, ns", 16, _figure("python", "many", BSA))
    yield Goal("memoryview by bytearray's", 1.0, by("memoryview", BSA, REFERENCE))
    for size in ("64 B", "1 MiB"):
        row = f"frombuffer {size}"
        more = _difference(("python", row, BSA), ("python", row, REFERENCE))
        yield Goal(f"{row}, ns more than bytearray's", 45, more)
    for other, times in (("BufferWrapper", 100), ("SharedMemory", 500)):
        name = f"{other} by malloc and free, 64 KiB"
        yield Goal(name, times, by("64 KiB", other, BSA), at_least=True)
    yield Goal("the fastest replay, M events/s", 60, _fastest_replay, at_least=True)


# ---- Their values ----


def _figure(level, row, candidate):
    def value(results):
        return level in results and results[level].get(row, candidate) or None

    return value


def _ratio(one, other):
    def value(results):
        first, second = _figure(*one)(results), _figure(*other)(results)
        return first and second and first.by(second)

    return value


def _difference(one, other):
    def value(results):
        first, second = _figure(*one)(results), _figure(*other)(results)
        if first is None or second is None:
            return None
        pairs = zip(first.values, second.values, strict=True)
        return Series(tuple(None if None in pair else pair[0] - pair[1] for pair in pairs))

    return value


def _by(row, peer):
    return _ratio(("c", row, "bsa"), ("c", row, peer))


def _mean_by(peer):
    def value(results):
        ratios = [_by(row, peer)(results) for row in workloads.SMALL]
        return None if None in ratios else geometric_mean(ratios)

    return value


def _by_slowest(row):
    def value(results):
        peers = [name for name in results["c"].measured_by(row) if name != "bsa"]
        ratios = [ratio for name in peers if (ratio := _by(row, name)(results))]
        return min(ratios, key=lambda ratio: ratio.median, default=None)

    return value


def _fastest_replay(results):
    rows = results["python"].rows if "python" in results else ()
    replays = [row for row in rows if row.startswith("replay ") and "," not in row]
    found = [series for row in replays if (series := results["python"].get(row, BSA))]
    return max(found, key=lambda series: series.median, default=None)
