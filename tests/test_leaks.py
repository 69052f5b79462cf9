"""No public call leaks: references (where this Python counts them), objects, bytes or mappings; on good and wrong ways.

`make test-leaks` runs this on a debug build of Python, which counts all references.
"""

import contextlib
import gc
import os
import sys
import tracemalloc

import pytest

from public_calls import ERRORS, GOOD, Scene

ROUNDS, REPETITIONS = 50, 10
# The least that grows if each call leaks one reference, one object, its bytes, or one page.
LEAKS = (REPETITIONS, REPETITIONS, 32 * REPETITIONS, REPETITIONS)


@pytest.fixture(scope="module", autouse=True)
def traced():
    """Collections need not look at all that pytest has made; what CPython allocates is counted."""
    gc.collect()
    gc.freeze()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.unfreeze()


def mapped_pages():
    """Pages of address space; 0 without /proc, and where a sanitizer maps more than we do."""
    if not os.path.exists("/proc/self/statm") or "BSA_SANITIZE" in os.environ:
        return 0
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0])


def counts():
    gc.collect()
    return (
        sys.gettotalrefcount() if hasattr(sys, "gettotalrefcount") else 0,
        sys.getallocatedblocks(),
        tracemalloc.get_traced_memory()[0],
        mapped_pages(),
    )


def growth(call):
    """By how much each count grows as the call is repeated."""
    before = counts()
    for _ in range(REPETITIONS):
        call()
    return [now - then for now, then in zip(counts(), before)]


def nothing():
    """Calls of this show what the counting itself takes."""


def expect_no_leak(call):
    """What leaks does so each time; caches and free lists of the interpreter fill up, and rest."""
    for _ in range(ROUNDS):
        grown = [much - idle for much, idle in zip(growth(call), growth(nothing))]
        if all(map(int.__lt__, grown, LEAKS)):
            return
    pytest.fail(f"references, objects, bytes, pages in {REPETITIONS} calls: {grown}")


def on_a_scene(call):
    def once():
        scene = Scene()
        with contextlib.suppress(Exception):
            call(scene)
        scene.close()

    return once


@pytest.mark.parametrize("name", GOOD)
def test_a_call_leaks_nothing(name):
    expect_no_leak(on_a_scene(GOOD[name]))


@pytest.mark.parametrize("name", ERRORS)
def test_a_refusal_leaks_nothing(name):
    expect_no_leak(on_a_scene(ERRORS[name]))


def test_a_leak_would_be_seen():
    kept = []
    with pytest.raises(pytest.fail.Exception):
        expect_no_leak(lambda: kept.append(object()))
    with pytest.raises(pytest.fail.Exception):
        expect_no_leak(lambda: kept.append(bytearray(1 << 20)))
