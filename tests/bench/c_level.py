"""Runs the C workloads: all candidates in turn, each in a process of its own, turn after turn."""

import collections
import struct
import subprocess

from peers import GLIBC
from bsa.bench import machine
from bsa.bench.results import middle
from bsa.trace import Trace

OUT_OF_MEMORY = 3  # the exit status of main.c
MOST_SECONDS = 600


class Failure(Exception):
    """A process gave no figures; the text says why."""


def run(program, arguments, peer=None):
    """Figures of one process: name to numbers, in the order in which they were printed."""
    command = [str(program), *map(str, arguments)]
    environment = (peer or GLIBC).environment
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=MOST_SECONDS
    )
    if done.returncode == OUT_OF_MEMORY:
        raise Failure("too little memory")
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    figures = collections.defaultdict(list)
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        figures[name].append(value)
    library = figures.pop("library")[0]
    if peer and not peer.is_in(library):
        raise Failure(f"malloc came from {library}: {done.stderr.strip()}")
    return {name: list(map(float, values)) for name, values in figures.items()}


def reason_to_leave_out(workload):
    """Why this machine cannot do it; "" if it can."""
    if workload.threads > machine.processors():
        return f"needs {workload.threads} processors, and there is one"
    available = machine.available_memory()
    if workload.memory > available:
        return f"needs {workload.memory >> 20:,} MiB of memory, and {available >> 20:,} are free"
    return ""


def measure(results, workloads, programs, peers, progress):
    """Add all figures to `results`."""
    slots = max(machine.processors(), 2)
    possible = [workload for workload in workloads if _is_possible(results, workload)]
    tell = progress.step("measuring in C", results.turns * len(possible)) or _say_nothing
    for turn in range(results.turns):
        for number, workload in enumerate(possible):
            tell(turn * len(possible) + number)
            if turn < workload.most_turns:
                for name, program, peer in _candidates(workload, programs, peers, turn):
                    _measure_once(results, turn, workload, slots, name, program, peer)


def _say_nothing(done):
    """Nobody watches."""


def _is_possible(results, workload):
    reason = reason_to_leave_out(workload)
    for row in workload.figures.values() if reason else ():
        results.leave_out(row, None, reason)
    return not reason


def _candidates(workload, programs, peers, turn):
    """Name, program and peer of each, beginning with another one in each turn."""
    others = [] if workload.bsa_only else [(one.name, programs["malloc"], one) for one in peers]
    everyone = [("bsa", programs["bsa"], None), *others]
    first = turn % len(everyone)
    return everyone[first:] + everyone[:first]


def _measure_once(results, turn, workload, slots, name, program, peer):
    rows = workload.figures
    if any((row.name, name) in results.left_out for row in rows.values()):
        return
    try:
        figures = run(program, workload.arguments(slots), peer)
    except (Failure, subprocess.TimeoutExpired) as error:
        for row in rows.values():
            results.leave_out(row, name, str(error))
        return
    for figure, row in rows.items():
        if figure in figures:
            results.add(turn, row, name, middle(figures[figure]))


_EVENT = struct.Struct("=QIIQ")


def write_events(path, file):
    """Write a saved trace as trace.c reads it."""
    trace = Trace.load(path)
    with open(file, "wb") as out:
        out.write(struct.pack("=QQ", len(trace), trace.ids))
        for event in zip(trace.size, trace.id, trace.align, trace.op, strict=True):
            out.write(_EVENT.pack(*event))
