"""`make bench-instructions`: instructions that each operation takes, counted by callgrind.

Unlike times they are the same in every run, so what is kept in instructions.json shows in a diff
what a change costs. Counted are the calls that a workload makes in its measured loops, all the way
down; not the loops. Counts differ between compilers: they are compared only with those of the one
that made the file.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import workloads
from build import build, compiler_version
from bsa.bench.table import table
from bsa.progress import Progress

KEPT = pathlib.Path(__file__).resolve().parent / "instructions.json"
CALLS = {
    "front_alloc": "alloc",
    "front_free": "free",
    "front_alloc_pages": "alloc",
    "front_free_pages": "free",
}
SLOTS = 2
LIVE = workloads.FULL.live[:1] + workloads.FULL.live[2:]  # the sizes of N
WANTED_GROWTH = 1.1
TOLERATED = 0.005  # of a count: what addresses change


def parser():
    """The command line."""
    result = argparse.ArgumentParser(
        prog="make bench-instructions", description=__doc__.splitlines()[0]
    )
    result.add_argument("--update", action="store_true", help=f"write {KEPT.name}")
    result.add_argument("--quick", action="store_true", help="without the large heaps of N")
    result.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="that begin so")
    return result


def programs(quick):
    """Rows: name to the arguments of a short run."""
    one = {"threads": 1, "slots": SLOTS, "chunks": 2, "ops": 50_000}
    live = {"live": 100_000}
    yield "S1", "pairs", one
    yield "S2", "batch", {**one, **live}
    yield "S3", "replacement", {**one, **live, "uniform": 1}
    yield "S4", "replacement", {**one, **live, "uniform": 0}
    yield "B1 merged", "page-pairs", {**one, "held": 0, "slots": 1}
    yield "B1 held", "page-pairs", {**one, "held": 1}
    yield "B2", "page-mix", one
    yield "B3", "page-exhaustion", one
    for size in LIVE[:1] if quick else LIVE:
        # As many operations as there are objects, so that the heaps are alike.
        many = {**one, "live": size, "ops": size // 2}
        yield f"N S2 {workloads.count(size)}", "batch", {**many, "chunks": 1}
        yield f"N S4 {workloads.count(size)}", "replacement", {**many, "uniform": 0}
    for sections in (1, 1000):
        yield f"K {sections}", "sections", {**one, "sections": sections}


def count(program, name, arguments):
    """What callgrind counts in a run: call to instructions for each."""
    with tempfile.TemporaryDirectory(prefix="bsa-bench-") as folder:
        out = pathlib.Path(folder, "callgrind.out")
        command = [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={out}",
            str(program),
            name,
        ]
        command += [f"{option}={value}" for option, value in arguments.items()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
        return per_call(out.read_text(encoding="utf-8", errors="replace"), measured_functions())


def measured_functions():
    """Names of the measured loops, as the sources mark them."""
    sources = (KEPT.parent / "c").glob("*.c")
    found = (re.findall(r"^MEASURED .*?(\w+)\(", s.read_text("utf-8"), re.M) for s in sources)
    return {name for names in found for name in names}


def per_call(profile, callers):
    """From a profile: inclusive instructions of the calls from `callers`, by the number of calls."""
    names, calls, caller, callee = {}, {}, "", ""
    lines = iter(profile.splitlines())
    for line in lines:
        kind, _, value = line.partition("=")
        if kind in ("fn", "cfn"):
            number, _, name = value.partition(" ")
            name = names.setdefault(number, name.partition("'")[0])
            caller, callee = (name, callee) if kind == "fn" else (caller, name)
        elif kind == "calls" and caller in callers and callee in CALLS:
            times, instructions = calls.get(callee, (0, 0))
            cost = int(next(lines).split()[1])
            calls[callee] = times + int(value.split()[0]), instructions + cost
    return {CALLS[name]: round(cost / times, 1) for name, (times, cost) in calls.items()}


def counts(program, args):
    """Row to instructions, of all that was asked for."""
    chosen = [one for one in programs(args.quick) if one[0].startswith(tuple(args.only))]
    found = {}
    with Progress() as progress:
        tell = progress.step("counting", len(chosen)) or (lambda done: None)
        for done, (row, name, arguments) in enumerate(chosen):
            tell(done)
            for call, instructions in sorted(count(program, name, arguments).items()):
                found[f"{row} {call}"] = instructions
    return found


def lines(found, kept):
    """The table: now, kept, and by how much they differ."""
    rows = []
    for name, now in found.items():
        before = kept.get(name)
        change = "new" if before is None else f"{now - before:+.1f}" if differs(now, before) else ""
        rows.append([name, f"{now:.1f}", "-" if before is None else f"{before:.1f}", change])
    return table(["instructions", "now", "kept", ""], rows)


def differs(now, before):
    return abs(now - before) > TOLERATED * before


def _missed(times):
    return ", NOT MET" if times > WANTED_GROWTH else ""


def growth(found):
    """Lines that tell how counts grow from the smallest heap of N to the largest."""
    small, large = (f" {workloads.count(size)} " for size in (LIVE[0], LIVE[-1]))
    pairs = {name: name.replace(small, large) for name in found if small in name}
    return [
        f"{name.replace(small, ' ')}:{large}by{small}objects {found[other] / found[name]:.2f} "
        f"(wanted: at most {WANTED_GROWTH}{_missed(found[other] / found[name])})"
        for name, other in pairs.items()
        if other in found
    ]


def main(argv=None):
    """Exit status."""
    args = parser().parse_args(argv)
    if shutil.which("valgrind") is None:
        print("no valgrind: install it (Debian: valgrind)", file=sys.stderr)
        return 1
    kept = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    compiler = compiler_version()
    if kept and kept["compiler"] != compiler:
        print(f"{KEPT.name} is of {kept['compiler']}, this is {compiler}: not comparable")
        kept = {}
    with tempfile.TemporaryDirectory(prefix="bsa-bench-") as folder:
        found = counts(build(pathlib.Path(folder))["bsa"], args)
    before = kept.get("instructions", {})
    print("\n".join([*lines(found, before), "", *growth(found)]))
    if args.update:
        kept = {"compiler": compiler, "instructions": {**before, **found}}
        KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
