"""The proof of the proof: puts faults into the core, one at a time, and tells which test finds each.

    run.py [WORD ...]

mutants.toml lists the faults. Each is put into a copy of the sources of its own, and the killers try their luck, fastest
first: the C programs, without the core's internal assertions (tests are to find the faults, and not the core itself), then
the Python tests that are nearest to the core. Programs whose findings depend on how threads happen to run are left out.
With WORDs only the mutants that have one of them in their name.

A mutant that crashes a test or keeps it from ending is killed. Survivors must be explained in mutants.toml. Exit status 1:
a survivor is not explained, an explained one dies, or less than 95 % of all die.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import typing
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = [
    "test_slab",
    "test_directory",
    "test_buddy",
    "test_last_block",
    "test_facade",
    "test_rebuild",
    "test_lowmem",
    "test_check",
    "test_page_cache",
]
PYTHON_TESTS = [
    "tests/test_pages.py",
    "tests/test_slabs.py",
    "tests/test_allocator.py",
    "tests/test_regions.py",
    "tests/test_addresses.py",
    "tests/test_out_of_memory.py",
    "tests/test_slots.py",
    "tests/test_errors.py",
    "tests/test_processes.py",
    "tests/test_testing_machines.py::TestPages",
    "tests/test_testing_machines.py::TestSlabs",
    "tests/test_testing_machines.py::TestAll",
]
LEAST_SHARE = 0.95
WORKERS = 2
PROGRAM_SECONDS, PYTHON_SECONDS = 10, 300  # of processor time; many times what they need
PATIENCE = 20  # as many times longer, by the clock, for what hangs without computing


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    file: str  # in csrc/core
    old: str
    new: str
    breaks: str
    equivalent: str = ""  # why no test can tell it from the original

    def apply(self, tree):
        """Put the fault into the sources below `tree`; ValueError if its place is not found exactly once."""
        path = tree / "csrc" / "core" / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: found {text.count(self.old)} times in {self.file}")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


class Kill(typing.NamedTuple):
    test: str
    output: str


def load():
    with open(pathlib.Path(__file__).with_name("mutants.toml"), "rb") as file:
        return [Mutant(**fields) for fields in tomllib.load(file)["mutant"]]


def run(command, tree, seconds=None, **environment):
    """Run a command in `tree`, with so much processor time. Returns its output and how it failed, if it did."""
    limited = ["sh", "-c", 'ulimit -t "$0"; exec "$@"', seconds or "unlimited", *command]
    endless = f"no end within {seconds} s"
    try:
        done = subprocess.run(
            [str(part) for part in limited],
            cwd=tree,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=seconds and seconds * PATIENCE,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired as expired:
        return (expired.stdout or b"").decode(errors="replace"), endless
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return done.stdout, endless
    if done.returncode < 0:
        return done.stdout, f"signal {-done.returncode}"
    return done.stdout, f"exit status {done.returncode}" if done.returncode else None


def must_run(command, tree):
    output, failure = run(command, tree)
    if failure is not None:
        raise RuntimeError(f"{' '.join(map(str, command))}: {failure}\n{output}")


class Programs:
    """The C programs. Their own objects are compiled once, and again only for faults in headers."""

    CC = [os.environ.get("CC", "gcc"), "-std=c11", "-D_GNU_SOURCE", "-pthread", "-O1"]
    CC += ["-Icsrc/core", "-Icsrc/hosted", "-Itests/c"]

    def __init__(self, objects, names=PROGRAMS):
        self.objects, self.names = objects, names
        for name in names:
            self.compile(name, ROOT, objects)

    def compile(self, name, tree, to):
        must_run([*self.CC, "-c", f"tests/c/{name}.c", "-o", to / f"{name}.o"], tree)

    def killer(self, tree, header_changed):
        """The Kill of the first test that fails with the sources below `tree`; None if all pass."""
        core = tree / "core.o"
        must_run([*self.CC, "-c", "csrc/core/all.c", "-o", core], tree)
        for name in self.names:
            if header_changed:
                self.compile(name, tree, tree)
            objects = tree if header_changed else self.objects
            must_run([*self.CC, objects / f"{name}.o", core, "-o", tree / name], tree)
            output, failure = run([tree / name], tree, PROGRAM_SECONDS)
            if failure is not None:
                tests = re.findall(r"^\w+$", output, re.MULTILINE)  # RUN names each before it runs
                return Kill(" ".join([f"{name}:", *tests[-1:], f"({failure})"]), output)
        return None


class PythonTests:
    """The Python tests, with an extension built for each mutant. Hypothesis draws the same examples each time."""

    def killer(self, tree, header_changed):
        must_run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], tree)
        pytest = [sys.executable, "-m", "pytest", "-x", "-v", "-p", "no:cacheprovider"]
        output, failure = run(
            [*pytest, "--hypothesis-seed=0", *PYTHON_TESTS],
            tree,
            PYTHON_SECONDS,
            PYTHONPATH=str(tree),
            HYPOTHESIS_PROFILE="dev",
        )
        if failure is None:
            return None
        # -v names each before it runs
        tests = re.findall(r"^tests/(\S+\.py::\S+)", output, re.MULTILINE)
        return Kill(f"{tests[-1] if tests else 'pytest'} ({failure})", output)


def copy_tree(to):
    """What is needed to build and test, without anything built."""
    for name in ("csrc", "bsa", "tests", "examples"):
        shutil.copytree(
            ROOT / name,
            to / name,
            ignore=shutil.ignore_patterns("__pycache__", "*.so", "lib", ".hypothesis"),
        )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, to)


def find_killer(killers, mutant=None):
    """The Kill of the mutant, or of the original; None: it survives all killers."""
    with tempfile.TemporaryDirectory(prefix="bsa-mutant-") as folder:
        tree = pathlib.Path(folder)
        copy_tree(tree)
        if mutant is not None:
            mutant.apply(tree)
        header_changed = mutant is not None and mutant.file.endswith(".h")
        for killer in killers:
            found = killer.killer(tree, header_changed)
            if found is not None:
                return found
    return None


def verdict(mutant, kill):
    """What the table says of a mutant, and whether that is as it should be."""
    if kill is not None and mutant.equivalent:
        return f"DIES, although explained: {kill.test}", False
    if kill is not None:
        return kill.test, True
    if mutant.equivalent:
        return f"survives: {mutant.equivalent}", True
    return f"SURVIVES: {mutant.breaks}", False


def report(mutants, killers):
    """Print the table as it fills; how many die, and how many are not as they should be."""
    width = max(len(mutant.name) for mutant in mutants)
    died = wrong = 0
    with ThreadPoolExecutor(WORKERS) as pool:
        results = pool.map(lambda mutant: find_killer(killers, mutant), mutants)
        for mutant, kill in zip(mutants, results):
            text, right = verdict(mutant, kill)
            died += kill is not None
            wrong += not right
            print(f"{mutant.name:{width}}  {text}", flush=True)
    return died, wrong


def main(words):
    every = load()
    mutants = [m for m in every if not words or any(word in m.name for word in words)]
    if not mutants:
        sys.exit("no mutant has such a name")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bsa-mutants-") as objects:
        killers = [Programs(pathlib.Path(objects)), PythonTests()]
        failing = find_killer(killers)
        if failing is not None:
            sys.exit(f"{failing.output}\nThis fails without any fault: {failing.test}")
        print(f"without any fault all tests pass ({time.monotonic() - start:.0f} s)\n", flush=True)
        died, wrong = report(mutants, killers)
    share = died / len(mutants)
    print(f"\n{died} of {len(mutants)} die ({share:.1%}), {len(mutants) - died} survive", end="")
    print(f"; {wrong} not as they should be; {time.monotonic() - start:.0f} s")
    return wrong != 0 or (len(mutants) == len(every) and share < LEAST_SHARE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
