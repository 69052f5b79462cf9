"""Compiles the C workloads twice: over malloc, and over a shared library that holds bsa."""

import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SOURCES = pathlib.Path(__file__).resolve().parent / "c"

# -fno-builtin: the compiler may not know what malloc is, or it removes pairs of it and free.
WORKLOADS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-fno-builtin", "-pthread"]
# -fno-plt: each call is one, and callgrind sees whom it reaches.
WORKLOADS += ["-fno-plt", "-Wl,-z,now", "-Wall", "-Wextra"]
# The core as setup.py compiles it. Every bsa_ function can be called from outside, none be replaced.
LIBRARY = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-pthread", "-fno-tree-slp-vectorize"]
LIBRARY += ["-shared", "-fPIC", "-fno-semantic-interposition", "-Wl,-Bsymbolic"]

COMMON = ["main.c", "small.c", "trace.c"]
OVER_BSA = ["pages.c", "sections.c", "setup.c", "refusals.c"]


def compiler():
    """The path of the C compiler."""
    path = shutil.which("gcc") or shutil.which("cc")
    if path is None:
        raise OSError("no C compiler: install gcc")
    return path


def compiler_version():
    """Its name and version."""
    done = subprocess.run([compiler(), "--version"], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[0]


def build(folder, sources_of_core=ROOT / "csrc" / "core", refuses=True):
    """Programs by what they run over: "malloc" and "bsa".

    `refuses`: each run over bsa first sees that wrong frees are refused, or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    library, over_bsa, over_malloc = (
        folder / name for name in ("libbench_bsa.so", "bench_bsa", "bench_malloc")
    )
    core = ["-DBENCH_BSA", f"-DREFUSES={int(refuses)}", f"-I{sources_of_core}"]
    held = [SOURCES / "front_bsa.c", sources_of_core / "all.c"]
    _compile(*LIBRARY, *core, *held, "-o", library)
    common, extra = ([SOURCES / name for name in names] for names in (COMMON, OVER_BSA))
    link = [f"-L{folder}", "-lbench_bsa", "-Wl,-rpath,$ORIGIN"]
    _compile(*WORKLOADS, *core, *common, *extra, *link, "-o", over_bsa)
    _compile(*WORKLOADS, *common, "-o", over_malloc)
    return {"bsa": over_bsa, "malloc": over_malloc}


def _compile(*arguments):
    subprocess.run([compiler(), *map(str, arguments)], check=True)
