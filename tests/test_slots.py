"""Slots: which one a thread has, and pins."""

import threading

import pytest

import bsa
from helpers import unchanged

# --- slots ---


def test_a_thread_can_be_pinned_to_a_slot():
    assert bsa.set_cpu(1) is None
    try:
        assert bsa.current_cpu() == 1
        assert bsa.set_cpu(0) == 1
    finally:
        bsa.set_cpu(None)


def test_cpu_pins_within_a_with_statement(heap):
    with bsa.cpu(1):
        with bsa.cpu(0):
            assert bsa.current_cpu() == 0
            assert heap.slab_of(heap.malloc(10)).cpu == 0
        assert bsa.current_cpu() == 1
        assert heap.slab_of(heap.malloc(10)).cpu == 1
    assert bsa.set_cpu(None) is None


def test_a_cpu_object_can_be_entered_again_while_entered():
    pin = bsa.cpu(1)
    with pin, pin:
        assert bsa.current_cpu() == 1
    assert bsa.set_cpu(None) is None


@pytest.mark.parametrize(
    "number, error",
    [
        (-1, bsa.InvalidParamError),
        (65535, bsa.InvalidParamError),
        (1 << 32, bsa.InvalidParamError),
        (1 << 64, OverflowError),
        ("0", TypeError),
        (1.0, TypeError),
    ],
)
def test_what_is_no_slot_number_pins_nothing(number, error):
    with pytest.raises(error):
        bsa.set_cpu(number)
    with pytest.raises(error):
        with bsa.cpu(number):
            pass
    assert bsa.set_cpu(None) is None


def test_a_slot_that_the_allocator_lacks_refuses_allocations(heap):
    address = heap.malloc(100)
    with bsa.cpu(heap.cpus):
        for request in (
            lambda: heap.malloc(10),
            lambda: heap.alloc(10_000),
            lambda: heap.alloc_pages(1),
            lambda: heap.alloc_pages_lowmem(1),
            lambda: heap.malloc_many(2, 10),
            lambda: heap.realloc(address, 100_000),
        ):
            with unchanged(heap), pytest.raises(bsa.InvalidParamError):
                request()


def test_frees_from_a_slot_that_the_allocator_lacks_are_remote(heap):
    with bsa.cpu(0):
        small, large = heap.malloc(64), heap.malloc(10_000)
    with bsa.cpu(1000):
        heap.free(small)
        heap.free(large)
    assert heap.slab_of(small).remote_free_count == 1
    assert len(heap) == 0


def test_threads_that_live_together_get_slots_of_their_own():
    barrier = threading.Barrier(4)
    numbers = []

    def run():
        numbers.append(bsa.current_cpu())
        barrier.wait()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(numbers)) == 4


def test_slots_of_dead_threads_are_used_again():
    numbers = set()
    for _ in range(300):
        thread = threading.Thread(target=lambda: numbers.add(bsa.current_cpu()))
        thread.start()
        thread.join()
    assert len(numbers) < 100


def test_a_pin_is_of_one_thread():
    seen = []
    with bsa.cpu(50):
        thread = threading.Thread(target=lambda: seen.append(bsa.set_cpu(None)))
        thread.start()
        thread.join()
        assert bsa.current_cpu() == 50
    assert seen == [None]


def test_threads_can_use_one_allocator_at_once(heap):
    failures = []

    def churn(seed):
        try:
            mine = []
            for i in range(3000):
                mine.append((heap.alloc((i * seed) % 6000), i % 256))
                mine[-1][0][:] = bytes([i % 256]) * mine[-1][0].size
                if i % 3:
                    block, byte = mine.pop(i * seed % len(mine))
                    assert block[:] == bytes([byte]) * block.size
                if i % 500 == 0:
                    heap.check()
        except Exception as error:  # reported below: a thread's own would only be printed
            failures.append(error)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in (7, 11, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(heap) == 0
