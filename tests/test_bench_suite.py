"""The suite of `make bench`: every workload gives its figures, and what cannot be measured is named. No test is about time."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from bsa.bench import machine
from bsa.bench.results import Results
from bsa.bench.series import Series

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUITE = ROOT / "tests" / "bench"

sys.path.insert(0, str(SUITE))
try:
    import build
    import c_level
    import checks
    import document
    import goals
    import instructions
    import peers
    import run
    import workloads
finally:
    sys.path.remove(str(SUITE))

pytestmark = pytest.mark.skipif(
    not (ROOT / "csrc").exists() or sys.platform != "linux" or shutil.which("gcc") is None,
    reason="needs the sources, Linux and a compiler",
)
TINY = workloads.Scale(1000, 2, (100, 1000), (1, 3), 1000)


# ---- From C ----


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return build.build(tmp_path_factory.mktemp("bench"))


class Silent:
    def step(self, label, total):
        return None


def measured(chosen, programs, found=(peers.GLIBC,)):
    results = Results(1, {**machine.description(quick=True), "compiler": build.compiler_version()})
    results.candidates = dict.fromkeys(("bsa", *(peer.name for peer in found)), "1.0")
    c_level.measure(results, chosen, programs, found, Silent())
    return results


def test_every_workload_gives_every_figure(programs, tmp_path):
    files = run.event_files([ROOT / "tests" / "traces" / "git.bsa"], tmp_path)
    chosen = list(workloads.all_of(TINY, files))
    results = measured(chosen, programs)
    possible = [workload for workload in chosen if workload.threads <= machine.processors()]
    for workload in possible:
        for figure, row in workload.figures.items():
            assert results.get(row.name, "bsa").median > 0, results.left_out
            if not workload.bsa_only and figure != "live_per_held":
                assert results.get(row.name, "glibc").median > 0, results.left_out
    text = "\n".join(run.c_tables(results))
    assert all(row.name in text for workload in possible for row in workload.figures.values())
    assert "S1, glibc" in str(run.c_picture(results))
    aims = goals.as_table({"c": results}, goals.goals(TINY))
    assert sum("not measured" in line for line in aims) < len(aims) - 2


def test_a_library_that_was_not_preloaded_gives_no_figures(programs):
    absent = peers.Peer("absent", "libabsent.so.1", "1.0")
    results = measured([next(workloads.small(TINY))], programs, [absent])
    assert results.get("S1", "absent") is None
    assert "malloc came from" in results.left_out["S1", "absent"]
    assert results.get("S1", "bsa") is not None


def test_bsa_without_its_checks_gives_no_figures(programs, tmp_path):
    source, library = tmp_path / "careless.c", tmp_path / "careless.so"
    source.write_text("int bsa_free(void *root, unsigned long address) { return 0; }\n")
    subprocess.run([build.compiler(), "-shared", "-fPIC", source, "-o", library], check=True)
    careless = peers.Peer("careless", str(library), "1.0")
    with pytest.raises(c_level.Failure, match="a double free of an object"):
        c_level.run(programs["bsa"], ["pairs", "ops=1", "chunks=1", "slots=2"], careless)


def test_memory_that_does_not_suffice_is_said(programs, tmp_path):
    limited = tmp_path / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -v 300000\nexec {programs["malloc"]} "$@"\n')
    limited.chmod(0o755)
    arguments = ["batch", "live=10000000", "ops=1", "chunks=1", "slots=2"]
    with pytest.raises(c_level.Failure, match="too little memory"):
        c_level.run(limited, arguments)


def test_without_enough_memory_or_processors_a_workload_is_left_out(monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 200 << 20)
    monkeypatch.setattr(machine, "processors", lambda: 1)
    results = Results(1, machine.description(quick=True))
    large, two = list(workloads.growth(workloads.FULL))[-1], list(workloads.threads(TINY))[-1]
    c_level.measure(results, [large, two], {}, [], Silent())
    assert "MiB of memory, and 200 are free" in results.left_out["N S4 10^7", None]
    assert results.left_out["M2", None] == "needs 2 processors, and there is one"


def test_absent_peers_are_named_with_what_would_bring_them(monkeypatch):
    monkeypatch.setattr(peers.ctypes.util, "find_library", lambda name: None)
    present, absent = peers.find()
    assert present == [peers.GLIBC]
    assert absent["mimalloc"] == "not installed (Debian: libmimalloc2.0)"
    assert set(absent) == {"mimalloc", "jemalloc", "tcmalloc"}


@pytest.mark.parametrize(
    "arguments", [["--turns", "0"], ["--only", "X"], ["--no-such"], ["--document", "--only", "S"]]
)
def test_the_suite_refuses_wrong_options(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        run.main(arguments)
    assert error.value.code == 2


def test_the_core_is_compiled_as_it_is_shipped():
    shipped = re.findall(r'^compile_args .*"(-fno-[^"]+)"', (ROOT / "setup.py").read_text(), re.M)
    assert shipped and set(shipped) <= set(build.LIBRARY) and "-O2" in build.LIBRARY


def test_a_goal_is_met_missed_or_not_measured():
    less = goals.Goal("less", 1.5, lambda results: results and Series((1.0, 2.0, 1.2)))
    more = goals.Goal("more", 1.5, lambda results: results and Series((1.0, 2.0, 1.2)), True)
    assert [goals.as_table(True, [goal])[-1].split()[-2] for goal in (less, more)] == ["met", "MET"]
    assert "not measured" in goals.as_table(None, [less])[-1]


def test_a_goal_that_is_nearly_met_says_by_how_much_it_is_not():
    nearly = goals.Goal("nearly", 0.89, lambda results: Series((0.8879,)), at_least=True)
    assert goals.as_table(True, [nearly])[-1].endswith("0.89 | NOT MET, by 0.002 |")


# ---- Instructions, and the page ----


PROFILE = """\
fl=(1) small.c
fn=(2) alloc_and_free
10 5
cob=(3) library
cfi=(4) front_bsa.c
cfn=(5) front_alloc
calls=2 30
* 41
cfn=(6) needed
calls=2 30
* 1000

fn=(7) main
cfn=(5)
calls=9 30
* 9000

fn=(2)
cfn=(5)
calls=2 30
* 39
"""


def test_instructions_are_those_of_calls_from_measured_loops():
    assert instructions.per_call(PROFILE, {"alloc_and_free"}) == {"alloc": 20.0}


def test_every_measured_loop_is_known():
    assert {"alloc_and_free", "replace_uniform", "free_all"} <= instructions.measured_functions()


def test_instructions_are_kept_for_every_row():
    kept = json.loads(instructions.KEPT.read_text())["instructions"]
    rows = {row for row, _, _ in instructions.programs(quick=False)}
    assert {name.rpartition(" ")[0] for name in kept} == rows


def test_a_change_of_instructions_is_told():
    *_, same, other, new = instructions.lines(
        {"a": 100.0, "b": 103.0, "c": 1}, {"a": 100.2, "b": 100}
    )
    assert "+" not in same and "+3.0" in other and "new" in new


def test_instructions_that_grow_with_the_heap_are_told():
    (line,) = instructions.growth({"N S4 10^4 free": 100, "N S4 10^7 free": 150, "S4 free": 1})
    assert line.startswith("N S4 free: 10^7 by 10^4 objects 1.50")


def test_every_check_can_be_taken_away_once(tmp_path):
    for check in checks.load():
        core = shutil.copytree(ROOT / "csrc" / "core", tmp_path / check.name.replace(" ", "_"))
        check.remove_from(core)
        with pytest.raises(ValueError, match="found 0 times"):
            check.remove_from(core)


def test_a_build_without_a_check_runs_and_others_refuse_to(tmp_path):
    """A double free is accepted then; a build that says so may be measured, and no other."""
    core = shutil.copytree(ROOT / "csrc" / "core", tmp_path / "core")
    next(check for check in checks.load() if "double frees" in check.refuses).remove_from(core)
    arguments = "pairs threads=1 slots=2 chunks=1 ops=100".split()
    for refuses in (False, True):
        program = build.build(tmp_path / str(refuses), core, refuses)["bsa"]
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
        assert (done.returncode != 0) == refuses
        assert ("a double free of an object: success" in done.stderr) == refuses


def test_the_page_takes_the_lines_between_its_markers():
    text = "before\n<!-- c -->\nold\n<!-- end of c -->\nafter\n"
    filled = document.between_markers(text, "c", ["new"])
    assert filled == "before\n<!-- c -->\n\nnew\n\n<!-- end of c -->\nafter\n"
    with pytest.raises(ValueError, match="python"):
        document.between_markers(text, "python", [])


def test_the_page_has_a_place_for_all_tables():
    text = document.PAGE.read_text(encoding="utf-8")
    for name in ("c", "python", "aims"):
        assert document.between_markers(text, name, ["new"]) != text
