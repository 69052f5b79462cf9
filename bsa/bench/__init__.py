"""`python -m bsa bench`: what memory costs from Python, beside other ways of getting it."""

import argparse
import json
import pathlib

from bsa import output_file
from bsa.bench import machine, picture, python_level, table
from bsa.bench.results import Results
from bsa.progress import Progress
from bsa.trace import Trace

QUICK_TURNS, TURNS = 3, 7
QUICK_SECONDS, SECONDS = 0.01, 0.05  # of each figure


def add_parser(subparsers):
    """Add `bench` to the commands of `python -m bsa`."""
    parser = subparsers.add_parser(
        "bench",
        help="measure what memory costs from Python",
        description="Measure bsa beside bytearray, NumPy, ctypes, mmap, SharedMemory and "
        "multiprocessing on this machine: several processes, in each everyone in turn.",
        epilog="Example: python3 -m bsa bench --quick",
    )
    add = parser.add_argument
    add("traces", nargs="*", type=pathlib.Path, metavar="TRACE", help="replay this trace as well")
    add("--quick", action="store_true", help="under half a minute, and less exact")
    add("--turns", type=positive, metavar="N", help=f"processes ({TURNS}; {QUICK_TURNS} if quick)")
    add("--json", type=pathlib.Path, metavar="FILE", help="keep all figures in this file")
    add("--picture", type=pathlib.Path, metavar="FILE", help="draw the ratios: an SVG file")
    parser.set_defaults(run=run)


def positive(text):
    """A number from 1 on; for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def run(args):
    """The command `bench`."""
    for path in filter(None, (args.json, args.picture)):
        output_file.check(path)
    results = measured(args.turns, args.quick, args.traces)
    print("\n".join(tables(results)))
    if args.json:
        output_file.write(args.json, json_text(results))
    if args.picture:
        output_file.write(args.picture, str(drawn(results)).encode())
    return 0


def measured(turns=None, quick=False, traces=()):
    """Results of the Python level."""
    for path in traces:
        Trace.load(path)  # what cannot be replayed is found out before anything is measured
    turns = turns or (QUICK_TURNS if quick else TURNS)
    seconds = QUICK_SECONDS if quick else SECONDS
    results = Results(turns, machine.description(quick))
    with Progress() as progress:
        python_level.measure(results, seconds, traces, progress.step("measuring", turns))
    return results


def tables(results):
    """Lines of text."""
    sizes = [size for size in python_level.SIZES if results.measured_by(size)]
    others = [row for row in results.rows if row not in sizes and results.measured_by(row)]
    replays = [row for row in others if results.rows[row].unit != "ns"]
    against = [row for row in others if row not in replays]
    names = list(results.candidates)
    reference = python_level.REFERENCE
    lines = [machine.sentence(results.machine)]
    lines += [f"{name} is absent: {why}" for name, why in results.absent.items()]
    lines += ["", f"Getting memory of a size and giving it back, nanoseconds {table.NOTE}:", ""]
    lines += table.across(sizes, names, results.get)
    lines += ["", f"The same by what {reference} takes at that size:", ""]
    lines += table.across(sizes, names, lambda row, name: results.ratio(row, name, reference))
    compared = [python_level.BSA, reference]
    lines += ["", "Nanoseconds, and the ratio:", ""]
    lines += table.side_by_side(results, against, *compared)
    if replays:
        lines += ["", "Replays, million events a second:", ""]
        lines += table.figures(results, replays, [python_level.BSA])
    return [*lines, "", "What is measured:", "", *table.explanations(results)]


def drawn(results):
    """A Picture of the ratios to a bytearray of the same size."""
    sizes = [size for size in python_level.SIZES if results.measured_by(size)]
    reference = python_level.REFERENCE
    others = [name for name in results.candidates if name != reference]
    rows = {}
    for size in sizes:
        ratios = {name: results.ratio(size, name, reference) for name in others}
        rows[size] = {name: ratio for name, ratio in ratios.items() if ratio}
    title = "Getting memory and giving it back, from Python"
    return picture.draw(title, f"time by {reference}'s of the same size", rows)


def json_text(results):
    """The bytes of a file."""
    return (json.dumps(results.as_json(), indent=1) + "\n").encode()
