"""Poisoning (csrc/core/poison.h): a use after free is reported where it happens, by AddressSanitizer and by valgrind.

C programs are built here with either checker. What Python does is tried by `make test-asan` and `make test-valgrind`,
whose builds of the extension poison.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

from test_c import ALL, CC, ROOT, run

SOURCE = ROOT / "tests" / "c" / "poison.c"
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O0", f"-I{ROOT / 'csrc' / 'core'}"]
CULPRITS = {
    re.search(r"culprit: ([a-z-]+)", line)[1]: number
    for number, line in enumerate(SOURCE.read_text(encoding="utf-8").splitlines(), 1)
    if "culprit:" in line
}

needs_valgrind = pytest.mark.skipif(
    shutil.which("valgrind") is None or "libasan" in os.environ.get("LD_PRELOAD", ""),
    reason="no valgrind, or AddressSanitizer in its place",
)
VALGRIND = ["valgrind", "--quiet", "--error-exitcode=9"]
# name: (flags of the compiler, how to run, what a report says)
CHECKERS = {
    "asan": (["-fsanitize=address", "-DBSA_POISON_ASAN"], [], "use-after-poison"),
    "valgrind": (["-DBSA_POISON_MEMCHECK"], VALGRIND, "Invalid"),
}


@pytest.fixture(scope="module", params=["asan", pytest.param("valgrind", marks=needs_valgrind)])
def checked(request, tmp_path_factory):
    """Runs the C program under a checker: its exit status and output; and what a report says."""
    flags, launcher, report = CHECKERS[request.param]
    binary = tmp_path_factory.mktemp(request.param) / "poison"
    run(CC, *FLAGS, *flags, SOURCE, ALL, "-o", binary)

    def launch(*arguments):
        done = subprocess.run(
            [*launcher, binary, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0:allow_user_poisoning=1"},
        )
        return done.returncode, done.stdout

    return launch, report


def test_what_is_granted_may_be_touched(checked):
    launch, _ = checked
    status, output = launch()
    assert status == 0, output


@pytest.mark.parametrize("culprit", CULPRITS)
def test_a_use_of_what_is_nobodys_is_reported_with_its_line(checked, culprit):
    launch, report = checked
    status, output = launch(culprit)
    assert status != 0
    assert report in output
    assert f"poison.c:{CULPRITS[culprit]}" in output.split("\n\n")[0], output


# --- from Python ---

SCRIPT = """
import ctypes, faulthandler, sys
faulthandler.enable()
import bsa

def of_an_object(heap):
    address = heap.malloc(100)
    heap.free(address)
    return address

def of_a_block(heap):
    block = heap.alloc(5000)
    address = block.address
    block.free()
    return address

def of_a_block_dropped(heap):
    return heap.alloc(100).address

buffer = bytearray(1 << 20)
heap = bsa.Allocator(buffer, cpus=1)
block = heap.alloc(100)
block[:] = bytes(100)
if sys.argv[1] == "none":
    ctypes.memset(block.address, 1, block.usable_size)
    heap.close()
    print(len(bytes(buffer)))
else:
    address = globals()[sys.argv[1]](heap)
    ctypes.memset(address, 1, 100)  # culprit
"""
CULPRIT = SCRIPT.splitlines().index("    ctypes.memset(address, 1, 100)  # culprit") + 1
MISUSES = ["of_an_object", "of_a_block", "of_a_block_dropped"]


def run_script(path, misuse):
    """Run the script under the checker that bsa is built for."""
    path.write_text(SCRIPT)
    command, environment = [sys.executable, path, misuse], dict(os.environ)
    environment["PYTHONMALLOC"] = "malloc"
    if "address" in os.environ.get("BSA_SANITIZE", ""):
        environment["ASAN_OPTIONS"] = "detect_leaks=0:allow_user_poisoning=1:abort_on_error=1"
    else:
        command = [*VALGRIND, *command]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    return done.returncode, done.stdout


poisons = pytest.mark.skipif(
    "address" not in os.environ.get("BSA_SANITIZE", "") and "BSA_VALGRIND" not in os.environ,
    reason="bsa is not built to poison",
)


@poisons
def test_what_python_holds_may_be_touched(tmp_path):
    status, output = run_script(tmp_path / "script.py", "none")
    assert status == 0 and output.endswith("1048576\n"), output


@poisons
@pytest.mark.parametrize("misuse", MISUSES)
def test_a_use_after_free_through_ctypes_is_reported(tmp_path, misuse):
    status, output = run_script(tmp_path / "script.py", misuse)
    assert status != 0
    if "BSA_VALGRIND" in os.environ:
        assert re.search(r"Invalid write.*memset", output, re.S), output
    else:
        assert "use-after-poison" in output and f'script.py", line {CULPRIT}' in output, output
