"""The workloads in C: which program does them, with what options, and which figures they give."""

from dataclasses import dataclass, field

from bsa.bench.results import Row

FRESH = "in a fresh heap"
MIB = 1 << 20


@dataclass(frozen=True)
class Workload:
    """A process of the C program for each candidate and turn.

    `figures` says which row each of its figures belongs to. `ops` is the number of operations in one
    of its `chunks`. `memory` is what it needs at least, in bytes.
    """

    program: str
    figures: dict
    ops: int
    chunks: int
    options: dict = field(default_factory=dict)
    threads: int = 1
    bsa_only: bool = False
    memory: int = 64 * MIB
    most_turns: int = 1 << 10

    def arguments(self, slots):
        options = {"ops": self.ops, "chunks": self.chunks, "threads": self.threads, "slots": slots}
        return [self.program, *(f"{n}={v}" for n, v in {**options, **self.options}.items())]


@dataclass(frozen=True)
class Scale:
    """How much is done: operations in a chunk that takes a tenth of a second or so, chunks."""

    ops: int
    chunks: int
    live: tuple  # objects: the sizes of N
    sections: tuple  # their numbers in K
    objects: int = 100_000  # live in S2 to S4 and M1


FULL = Scale(1_700_000, 6, (10**4, 10**5, 10**6, 10**7), (1, 10, 100, 1000))
QUICK = Scale(250_000, 4, (10**4, 10**6), (1, 1000))

SMALL = ("S1", "S2 alloc", "S2 free", "S3", "S4")
THREADS = ("M1", "M2")
PAGES = ("B1 merged", "B1 held", "B2", "B3", "B4 one thread", "B4 two threads")
HELD = ("S3 live/held", "S4 live/held")
RESIDENT = ("S3 live/resident", "S4 live/resident", "M2 resident")
SETUP = ("set-up", "set-up touches")


def size_rows(kind, scale):
    """The rows of N of one kind ("S2 alloc", "S2 free", "S4")."""
    return [f"N {kind} {count(live)}" for live in scale.live]


def section_rows(kind, scale):
    """The rows of K of one kind ("random", "same")."""
    return [f"K {kind} {sections}" for sections in scale.sections]


def count(number):
    """10^6 for a million."""
    return f"10^{len(str(number)) - 1}"


def small(scale):
    """S1 to S4."""
    live = scale.objects
    objects = {"live": live}
    pair = Row("S1", f"a pair of alloc and free of 64 B, {FRESH}")
    batch = f"{live:,} objects of 64 B, {{}}; again and again"
    alloc = Row("S2 alloc", batch.format("allocated") + ": the first round is not counted")
    free = Row("S2 free", batch.format("freed in random order"))
    yield Workload("pairs", {"pair": pair}, 4 * scale.ops, scale.chunks)
    yield Workload("batch", {"alloc": alloc, "free": free}, scale.ops, scale.chunks, objects)
    sizes = {"S3": "8 to 1024 B, uniform", "S4": "70 % 16..64, 20 % 64..256, 10 % 256..2048 B"}
    for name, distribution in sizes.items():
        what = f"{live:,} live objects of {distribution}: a random one is freed and another "
        figures = {
            "replacement": Row(name, what + "allocated, its first 8 bytes written"),
            "live_per_held": Row(
                f"{name} live/held",
                f"bytes live by bytes of pages held, after {scale.ops * scale.chunks:,} "
                "replacements",
                "",
            ),
            "live_per_resident": Row(
                f"{name} live/resident",
                "bytes live by the growth of the process, metadata and all, at the same time",
                "",
            ),
        }
        options = {**objects, "uniform": int(name == "S3")}
        yield Workload("replacement", figures, scale.ops, scale.chunks, options, memory=512 * MIB)


def threads(scale):
    """M1 and M2."""
    both = Row("M1", "two threads, each doing S3 on objects of its own; the slower one's time")
    yield Workload(
        "replacement",
        {"replacement": both},
        scale.ops,
        scale.chunks,
        {"live": scale.objects, "uniform": 1},
        threads=2,
        memory=1024 * MIB,
    )
    figures = {
        "object": Row(
            "M2", "one thread allocates 8 to 1024 B, another frees, through a ring of 1024"
        ),
        "resident": Row("M2 resident", "memory of that process at its end", "bytes"),
    }
    yield Workload("ring", figures, scale.ops, scale.chunks, threads=2, memory=512 * MIB)


def pages(scale):
    """B1 to B4."""
    page = "a pair of alloc and free of one page, "
    one, held = {"held": 0}, {"held": 1}
    row = Row("B1 merged", page + "in a fully merged heap: one slot, so nothing is cached")
    yield _pages("page-pairs", row, scale, {**one, "slots": 1})
    row = Row("B1 held", page + "while one page is held, several slots")
    yield _pages("page-pairs", row, scale, held)
    row = Row("B2", "orders 0 to 6, half of the heap live: a random block is allocated or freed")
    yield _pages("page-mix", row, scale)
    row = Row("B3", "256 MiB exhausted page by page, freed in random order: an operation")
    yield _pages("page-exhaustion", row, scale)
    row = Row("B4 one thread", page + "several slots")
    yield _pages("page-pairs", row, scale, one)
    row = Row("B4 two threads", page + "in each of two threads, on one section")
    yield _pages("page-pairs", row, scale, one, threads=2)


def _pages(program, row, scale, options=None, threads=1):
    figure = "pair" if program == "page-pairs" else "operation"
    return Workload(
        program,
        {figure: row},
        scale.ops,
        scale.chunks,
        options or {},
        threads,
        bsa_only=True,
    )


def growth(scale):
    """N: S2 and S4 with more and more live objects."""
    for live in scale.live:
        rows = {kind: Row(name, "S2 with so many objects") for kind, name in _batch_rows(live)}
        objects = {"live": live}
        turns = 3 if live >= 10**7 else 5
        needed = 128 * MIB + live * 100
        yield Workload("batch", rows, scale.ops, 3, objects, memory=needed, most_turns=turns)
        row = Row(f"N S4 {count(live)}", "S4 with so many live objects")
        needed = 128 * MIB + live * 320
        yield Workload(
            "replacement",
            {"replacement": row},
            scale.ops,
            3,
            {**objects, "uniform": 0},
            memory=needed,
            most_turns=turns,
        )


def _batch_rows(live):
    return [(kind, f"N S2 {kind} {count(live)}") for kind in ("alloc", "free")]


def sections(scale):
    """K."""
    for number in scale.sections:
        many = "250 MiB in so many sections, full of 64 B objects, half of them freed: "
        rows = {
            "random": Row(f"K random {number}", many + "a random object replaced"),
            "same": Row(f"K same {number}", many + "a pair of alloc and free in one section"),
        }
        yield Workload(
            "sections",
            rows,
            scale.ops // 4,
            scale.chunks,
            {"sections": number},
            bsa_only=True,
            memory=400 * MIB,
            most_turns=5,
        )


def setup(scale):
    """64 GiB of address space."""
    what = "a heap of 64 GiB over fresh memory, reserved but not present: "
    rows = {
        "setup": Row("set-up", what + "making it"),
        "touched": Row("set-up touches", what + "memory that is present afterwards", "bytes"),
    }
    yield Workload("setup", rows, 1, 2 * scale.chunks, bsa_only=True)


def replays(scale, files):
    """T: `files` are names of traces and the events as the C program reads them."""
    for name, file in files.items():
        row = Row(f"T {name}", "the trace replayed in one thread, again and again: an event")
        yield Workload("trace", {"event": row}, scale.ops, scale.chunks, {"file": file})


def all_of(scale, files):
    """Every workload, in the order of the tables."""
    for part in (small, threads, pages, growth, sections, setup):
        yield from part(scale)
    yield from replays(scale, files)
