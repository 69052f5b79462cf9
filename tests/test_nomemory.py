"""Every public call while memory runs out inside CPython: MemoryError or success, never a crash, nothing half done."""

import contextlib
import gc

import pytest

import bsa
from helpers import state
from public_calls import DATA, ERRORS, GOOD, Scene

testcapi = pytest.importorskip("_testcapi", reason="this Python is without its own test helpers")

SUCCESSES = 5  # in a row: the call asks for no more memory than that
MOST = 1000

# Mostly Python code: it strains CPython (3.13.0 crashes when a new function gets no memory), not bsa.
IN_PYTHON = ("_repr_html_", "replay", "Trace", "on_oom", "phys")
CALLS = [name for name in GOOD if not any(word in name for word in IN_PYTHON)]
REFUSALS = [name for name in ERRORS if not any(word in name for word in IN_PYTHON)]


@pytest.fixture(autouse=True)
def cheap_collections():
    """Collections need not look at all that pytest has made."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def call_without_memory(call, scene, n, lasting):
    """Call it while the n-th request for memory (counting from 1) fails, and, if lasting, all that follow."""
    testcapi.set_nomemory(n - 1, 0 if lasting else n)
    try:
        call(scene)
    finally:
        testcapi.remove_mem_hooks()


def seen(scene):
    """What a call that fails must leave alone: all but what was ever allocated, and empty slabs that are kept."""
    heaps = []
    for heap in (scene.heap, scene.full):
        heap.trim()
        now = state(heap)
        stats = {name: value for name, value in now["stats"].items() if name.startswith("current")}
        heaps.append((now["walk"], now["requested"], stats, now["sections"], heap.allocated_bytes))
    return scene.settings(), heaps


def succeeds(name, scene, before, n, lasting):
    """Whether the call succeeds. If not, it has changed nothing, and holds on to nothing."""
    try:
        call_without_memory(GOOD[name], scene, n, lasting)
    except MemoryError as error:
        assert type(error) is MemoryError, "Python's memory ran out, not the heap's"
        gc.collect()
        scene.expect_no_export()
        assert seen(scene) == before
        return False
    return True


def finish(scene):
    if not scene.heap.closed:
        scene.heap.check()
    scene.close()


@pytest.mark.parametrize("lasting", [False, True], ids=["one", "all"])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_succeeds_or_changes_nothing_when_memory_fails(name, lasting):
    scene, successes, n = None, 0, 0
    while successes < SUCCESSES:
        n += 1
        assert n < MOST, "it never asks for the last of its memory"
        if scene is None:
            scene = Scene()
            before = seen(scene)
        if succeeds(name, scene, before, n, lasting):
            finish(scene)
            scene, successes = None, successes + 1
        else:
            successes = 0


@pytest.mark.parametrize("lasting", [False, True], ids=["one", "all"])
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_leaves_everything_sound_when_memory_fails(name, lasting):
    for n in range(1, 13):
        scene = Scene()
        with contextlib.suppress(Exception):
            call_without_memory(ERRORS[name], scene, n, lasting)
        finish(scene)


@pytest.mark.parametrize("type_", [bsa.Allocator, bsa.Block, bsa.Section, bsa.Slab])
def test_no_member_is_left_out(type_):
    called = [name for name in GOOD if name.startswith(type_.__name__)]
    for name, member in vars(type_).items():
        if isinstance(member, DATA):
            assert f"{type_.__name__}.{name}" in called
        elif name not in ("__doc__", "__module__", "__new__", "__reduce__"):
            assert any(name in call for call in called), name


def test_memory_does_fail():
    """The tests above would pass as well if nothing ever failed."""
    scene = Scene()
    with pytest.raises(MemoryError):
        call_without_memory(GOOD["Allocator.malloc"], scene, 1, False)
    scene.close()
