"""`make bench-checks`: what each check costs, in instructions, by builds of the core without it.

A build is the core with one change of checks.toml. Counted are S1 (a pair of alloc and free of 64 bytes) and the frees of
S2 (in random order), by callgrind as in instructions.py. Never use such a build for anything else.
"""

import argparse
import dataclasses
import pathlib
import shutil
import sys
import tempfile
import tomllib

import document
import instructions
from build import ROOT, build
from bsa.bench.table import table
from bsa.progress import Progress

ROWS = ("S1", "S2")
HEADINGS = ["without the check that", "it refuses", "S1", "of all", "S2 free", "of all"]


@dataclasses.dataclass(frozen=True)
class Check:
    """`old` stands once in the file of csrc/core; with `new` in its place the check is gone."""

    name: str
    refuses: str
    file: str
    old: str
    new: str

    def remove_from(self, core):
        """Take it out of the sources; ValueError if its place is not found exactly once."""
        path = core / self.file
        text = path.read_text("utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: found {text.count(self.old)} times in {self.file}")
        path.write_text(text.replace(self.old, self.new), "utf-8")


def load():
    """All checks."""
    with open(pathlib.Path(__file__).with_name("checks.toml"), "rb") as file:
        return [Check(**fields) for fields in tomllib.load(file)["check"]]


def counted_without(check):
    """Instructions of (a pair of S1, a free of S2) of a core without the check; None: with all."""
    with tempfile.TemporaryDirectory(prefix="bsa-bench-") as folder:
        core = pathlib.Path(shutil.copytree(ROOT / "csrc" / "core", pathlib.Path(folder, "core")))
        if check is not None:
            check.remove_from(core)
        program = build(pathlib.Path(folder, "build"), core, refuses=check is None)["bsa"]
        rows = {name: rest for name, *rest in instructions.programs(quick=True) if name in ROWS}
        found = {name: instructions.count(program, *rows[name]) for name in ROWS}
    return sum(found["S1"].values()), found["S2"]["free"]


def rows(checks):
    """Lines of the table."""
    with Progress() as progress:
        tell = progress.step("counting", len(checks) + 1) or (lambda done: None)
        all_of_them = counted_without(None)
        yield ["none: all are on", "", f"{all_of_them[0]:.0f}", "", f"{all_of_them[1]:.0f}", ""]
        for done, check in enumerate(checks, 1):
            tell(done)
            row = [check.name, check.refuses]
            for with_it, without in zip(all_of_them, counted_without(check)):
                row += [f"{without:.0f}", f"{without / with_it - 1:+.0%}"]
            yield row


def main(argv=None):
    """Exit status."""
    parser = argparse.ArgumentParser(prog="make bench-checks", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--document", action="store_true", help="put the table into docs/performance.md")
    args = parser.parse_args(argv)
    if shutil.which("valgrind") is None:
        print("no valgrind: install it (Debian: valgrind)", file=sys.stderr)
        return 1
    lines = table(HEADINGS, list(rows(load())))
    print("\n".join(lines))
    if args.document:
        document.update_table("checks", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
