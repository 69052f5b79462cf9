"""Compile and run the C programs: tests/c/test_*.c and examples/*.c; and the core as a kernel would compile it.

A test program gets csrc/core, and such hosted sources as its first line asks for:

    /* needs: hosted/threads.c hosted/registry.c */

BSA_C_SANITIZE=thread (or address,undefined) in the environment runs the same programs under that sanitizer;
BSA_C_COVERAGE=1 compiles them with gcov's counters, and without the core's assertions: those are no branches to be taken.
"""

import os
import pathlib
import platform
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
CORE = ROOT / "csrc" / "core"
ALL = CORE / "all.c"
SANITIZE = os.environ.get("BSA_C_SANITIZE")
COVERAGE = os.environ.get("BSA_C_COVERAGE")
CC = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
COMPILERS = [c for c in ("gcc", "clang") if shutil.which(c)]

WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wstrict-prototypes", "-Werror"]
HOSTED = ["-std=c11", "-D_GNU_SOURCE", "-pthread", "-O1", "-g", "-DBSA_DEBUG=3", *WARNINGS]
HOSTED += [f"-I{ROOT / folder}" for folder in ("csrc/core", "csrc/hosted", "tests/c")]
if SANITIZE:
    HOSTED += [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    # ThreadSanitizer does not understand fences, and GCC says so. What lies between ours is atomic, so no race is
    # reported wrongly. (GCC accepts any -Wno-..., Clang complains about those it does not know.)
    HOSTED += ["-Wno-unknown-warning-option", "-Wno-tsan"]

if COVERAGE:
    HOSTED += ["--coverage", "-O0", "-UBSA_DEBUG"]

FREESTANDING = ["-std=c11", "-ffreestanding", "-nostdlib", *WARNINGS]
if platform.machine() == "aarch64":
    FREESTANDING += ["-mno-outline-atomics"]  # else GCC calls its own library for atomics

pytestmark = [
    pytest.mark.skipif(not ALL.exists(), reason="not in the source tree"),
    pytest.mark.skipif(CC is None, reason="no C compiler"),
]


def run(*command, **options):
    """Run a command; what it printed is the failure's message."""
    done = subprocess.run(
        [str(c) for c in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=600,
        **options,
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}", False)
    return done.stdout


def programs():
    return [
        pytest.param(path, id=str(path.relative_to(ROOT)))
        for folder, pattern in (("tests/c", "test_*.c"), ("examples", "*.c"))
        for path in sorted((ROOT / folder).glob(pattern))
    ]


def needed(program):
    """The hosted sources that the first line of a program asks for."""
    with open(program, encoding="utf-8") as file:
        needs = re.search(r"needs:(.*?)(\*/|$)", file.readline())
    return [ROOT / "csrc" / name for name in needs[1].split()] if needs else []


def launcher():
    """ThreadSanitizer of older compilers cannot live with much address randomisation: switch it off where possible."""
    if SANITIZE != "thread" or shutil.which("setarch") is None:
        return []
    without = ["setarch", platform.machine(), "-R"]
    return (
        without if subprocess.run([*without, "true"], capture_output=True).returncode == 0 else []
    )


@pytest.fixture(scope="module")
def core_object(tmp_path_factory):
    """The core, compiled once for all programs."""
    path = tmp_path_factory.mktemp("core") / "core.o"
    run(CC, *HOSTED, "-c", ALL, "-o", path)
    return path


@pytest.mark.parametrize("program", programs())
def test_the_program_compiles_and_succeeds(program, core_object, tmp_path):
    binary = tmp_path / program.stem
    run(CC, *HOSTED, program, *needed(program), core_object, "-o", binary)
    run(*launcher(), binary, cwd=tmp_path)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("source", [pytest.param(s, id=s.name) for s in sorted(CORE.glob("*.c"))])
def test_each_core_file_compiles_freestanding(compiler, source, tmp_path):
    run(compiler, *FREESTANDING, "-O2", "-c", source, "-o", tmp_path / "out.o")


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm")
@pytest.mark.parametrize("optimise", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_core_needs_nothing_but_three_memory_functions(compiler, optimise, tmp_path):
    run(compiler, *FREESTANDING, optimise, "-c", ALL, "-o", tmp_path / "all.o")
    undefined = {line.split()[-1] for line in run("nm", "-u", tmp_path / "all.o").splitlines()}
    assert undefined <= {"memcpy", "memmove", "memset"}


def test_the_core_never_mentions_python():
    sources = [path for path in CORE.iterdir() if path.suffix in (".c", ".h")]
    assert [path.name for path in sources if "Python.h" in path.read_text(encoding="utf-8")] == []
