"""`make bench`: speed and memory of bsa beside others, from C and from Python, on this machine.

What is measured, and how to read it, is in docs/performance.md. Everything goes to the output
folder: results.json for keeping, tables.md as printed, and pictures.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import c_level
import document
import goals
import peers
import workloads
from build import ROOT, build, compiler_version
from bsa import bench
from bsa.bench import machine, picture, table
from bsa.bench.results import Results
from bsa.progress import Progress

OUTPUT = ROOT / "build-bench"
TRACES = ROOT / "tests" / "traces"
QUICK_TURNS, TURNS = 3, 9
HEAD = 2  # lines of a table
PARTS = {
    "S": workloads.small,
    "M": workloads.threads,
    "B": workloads.pages,
    "N": workloads.growth,
    "K": workloads.sections,
    "setup": workloads.setup,
}
ALL = (*PARTS, "T", "python")


def parser():
    """The command line."""
    result = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    add = result.add_argument
    add("traces", nargs="*", type=pathlib.Path, metavar="TRACE", help="to be replayed, too")
    add("--quick", action="store_true", help="under a minute, and less exact")
    turns = f"processes for each figure ({TURNS}; {QUICK_TURNS} if quick)"
    add("--turns", type=bench.positive, metavar="N", help=turns)
    add("--only", choices=ALL, action="append", metavar="PART", help=f"one of {', '.join(ALL)}")
    add("--output", type=pathlib.Path, default=OUTPUT, metavar="DIR", help="the folder to fill")
    add("--document", action="store_true", help="put tables and pictures into docs/performance.md")
    return result


def arguments(argv):
    """The options, or SystemExit."""
    command_line = parser()
    args = command_line.parse_args(argv)
    if args.document and args.only:
        command_line.error("--document takes all parts: without --only")
    return args


def main(argv=None):
    """Exit status: 1 if bsa itself failed somewhere, or nothing could be measured."""
    try:
        return measure(arguments(argv))
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 1


def measure(args):
    """Measure all that was asked for, print it and keep it."""
    parts = args.only or ALL
    scale = workloads.QUICK if args.quick else workloads.FULL
    traces = [*sorted(TRACES.glob("*.bsa")), *args.traces] if "T" in parts else []
    c_results = measured_in_c(args, scale, parts, traces)
    found = {"c": Level(c_results, c_tables(c_results), c_picture(c_results))}
    if "python" in parts:
        results = bench.measured(args.turns, args.quick, traces)
        found["python"] = Level(results, bench.tables(results), bench.drawn(results))
    all_results = {name: level.results for name, level in found.items()}
    wanted = goals.goals(scale)
    if args.only:
        wanted = [goal for goal in wanted if goal.value(all_results)]
    aims = goals.as_table(all_results, wanted)
    keep(args.output, found, aims)
    if args.document:
        document.update(found, aims)
    return int(any(has_failed(level.results) for level in found.values()))


def has_failed(results):
    """Whether a figure of bsa's is missing for no fault of the machine's."""
    return any(name == "bsa" for _, name in results.left_out)


class Level:
    """What there is of a level, C or Python: results, lines of tables, a Picture or None."""

    def __init__(self, results, tables, drawn):
        self.results, self.tables, self.drawn = results, tables, drawn


def measured_in_c(args, scale, parts, traces):
    """Results of the C level."""
    found, absent = peers.find()
    description = {**machine.description(args.quick), "compiler": compiler_version()}
    results = Results(args.turns or (QUICK_TURNS if args.quick else TURNS), description)
    results.candidates = {"bsa": description["bsa"], **{p.name: p.version for p in found}}
    results.absent = absent
    with tempfile.TemporaryDirectory(prefix="bsa-bench-") as folder, Progress() as progress:
        chosen = [w for part, make in PARTS.items() if part in parts for w in make(scale)]
        chosen += workloads.replays(scale, event_files(traces, pathlib.Path(folder)))
        if chosen:
            programs = build(args.output)
            c_level.measure(results, chosen, programs, found, progress)
            results.checks.append("double frees, interior and foreign addresses are refused")
    return results


def event_files(traces, folder):
    """Name of a trace to the file that the C program reads."""
    files = {}
    for path in traces:
        files[path.stem] = folder / f"{len(files)}.events"
        c_level.write_events(path, files[path.stem])
    return files


def keep(output, found, aims):
    """Print the tables, and write all files."""
    output.mkdir(parents=True, exist_ok=True)
    lines = [line for level in found.values() for line in [*level.tables, ""]]
    lines += ["What was aimed at:", "", *aims] if len(aims) > HEAD else []
    print("\n".join(lines))
    (output / "tables.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    kept = {name: level.results.as_json() for name, level in found.items()}
    (output / "results.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    for name, level in found.items():
        if level.drawn:
            (output / f"{name}.svg").write_text(str(level.drawn), encoding="utf-8")
    print(f"\nKept in {output}: results.json, tables.md and pictures")


def ratios_of_peers(results):
    """What the picture shows: of each row in ns, peer to Series."""
    others = [name for name in results.candidates if name != "bsa"]
    rows = {}
    for row in results.rows.values():
        ratios = {peer: results.ratio(row.name, peer, "bsa") for peer in others}
        ratios = {peer: ratio for peer, ratio in ratios.items() if ratio}
        if row.unit == "ns" and ratios:
            rows[row.name] = ratios
    return rows


def c_picture(results):
    """A Picture, or None if there is nobody to compare with."""
    rows = ratios_of_peers(results)
    subtitle = "time by bsa's; right of 1: slower than bsa; bars from the smallest to the largest"
    return picture.draw("Other allocators beside bsa", subtitle, rows) if rows else None


def c_tables(results):
    """Lines of text."""
    compared = list(ratios_of_peers(results))
    rows = [name for name in results.rows if results.measured_by(name)]
    alone = [n for n in rows if n not in compared and results.rows[n].unit == "ns"]
    memory = [n for n in rows if results.rows[n].unit != "ns"]
    everyone = list(results.candidates)
    lines = [machine.sentence(results.machine), results.machine["compiler"] + ".", ""]
    lines += [f"- {name} {version}" for name, version in results.candidates.items()]
    lines += [f"- {name}: absent, {why}" for name, why in results.absent.items()]
    if compared:
        lines += ["", f"Nanoseconds {table.NOTE}:", ""]
        lines += table.figures(results, compared, everyone)
        lines += ["", "The time that bsa takes, by that of each peer; below 1 bsa is faster:", ""]
        lines += table.ratios(results, compared, "bsa", everyone[1:])
    if alone:
        lines += ["", "What only bsa does, nanoseconds:", ""]
        lines += table.figures(results, alone, ["bsa"])
    if memory:
        lines += ["", "Memory:", "", *table.figures(results, memory, everyone)]
    return [*lines, "", "What is measured:", "", *table.explanations(results)]


if __name__ == "__main__":
    sys.exit(main())
