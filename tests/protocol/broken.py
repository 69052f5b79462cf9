"""Protocols of remote frees that look simpler than the one in remote_free.py, and are wrong; each as little changed from
it as will do. docs/design.md tells why; test_remote_free.py sees them fail."""

from explore import Violation
from remote_free import (
    MOST_WORDS,
    NOT_ALLOCATED,
    OK,
    WORD_BITS,
    clear_remote,
    drain_slab,
    exchange,
    expect_life,
    load,
    look_at_remote,
    name_word,
    push,
    retire_if_empty,
    set_bit,
    store,
    take_word,
    wait_for_other_than,
    words_of,
)

# --- a flag "something is pending", set after the bit ---


def raise_flag(memory, block, life):
    expect_life(memory, block, life)
    before, memory["summary", block] = memory["summary", block], 1
    return before


def free_and_raise_flag(me, block, index):
    w, bit = index // WORD_BITS, 1 << index % WORD_BITS
    cache = yield load, "word", block
    before = yield look_at_remote, me, block, w
    while True:
        if before & bit:
            return NOT_ALLOCATED
        here = yield load, "live", block, w
        if not here & bit:
            return NOT_ALLOCATED
        seen, life = yield set_bit, me, block, index, before
        if seen == before:
            break
        before = seen
    flag = yield raise_flag, block, life
    if flag == 0:
        yield from push(cache, block, life)
    return OK


def drain_every_word(block, objects):
    """Of use to the flag, which names no word; and wrong where words are named."""
    yield exchange, 0, "summary", block
    w = 0
    while w < words_of(objects):
        yield from take_word(block, w)
        w += 1


# --- count and list head in two words ---


def add_list(memory):
    """The list of the freed objects of block 1."""
    memory["head",] = None
    memory["count",] = 0
    for index in range(MOST_WORDS * WORD_BITS):
        memory["next", index] = None


def put_on_list(memory, head, index):
    before = memory["head",]
    if before == head:
        memory["head",] = index
        memory["held", 1, index] = False
    return before


def add_one(memory, name):
    memory[name,] += 1


def push_and_count(me, block, index):
    head = yield load, "head"
    while True:
        yield store, head, "next", index
        seen = yield put_on_list, head, index
        if seen == head:
            break
        head = seen
    yield add_one, "count"
    return OK


def take_back_one(memory, index):
    w, bit = divmod(index, WORD_BITS)
    memory["live", 1, w] &= ~(1 << bit)


def drain_list(cache):
    """The owner looks at the count, to see whether there is anything."""
    count = yield load, "count"
    if count == 0:
        return
    index = yield exchange, None, "head"
    yield store, 0, "count"
    while index is not None:
        yield take_back_one, index
        index = yield load, "next", index
    yield from retire_if_empty(1, cache[1])


def owner_of_list(cache):
    while True:
        yield wait_for_other_than, 0, "count"
        yield from drain_list(cache)


# --- one fetch_or instead of a compare-and-exchange ---


def fetch_or_bit(memory, block, index):
    """The word as it was, and the slab's life if the object was live until now."""
    w, bit = divmod(index, WORD_BITS)
    before = memory["remote", block, w]
    memory["remote", block, w] |= 1 << bit
    was_live, memory["held", block, index] = memory["held", block, index], False
    return before, memory["life", block] if was_live else None


def expect_was_live(memory, life):
    if life is None:
        raise Violation("a double free was accepted")


def look_and_fetch_or(me, block, index):
    """Looks at the live word before it sets the bit."""
    w, bit = index // WORD_BITS, 1 << index % WORD_BITS
    cache = yield load, "word", block
    here = yield load, "live", block, w
    if not here & bit:
        return NOT_ALLOCATED
    before, life = yield fetch_or_bit, block, index
    if before & bit:
        return NOT_ALLOCATED
    yield expect_was_live, life
    yield from name_if_first(cache, block, w, before, life)
    return OK


def fetch_or_and_look(me, block, index):
    """Looks at the live word after it has set the bit."""
    w, bit = index // WORD_BITS, 1 << index % WORD_BITS
    cache = yield load, "word", block
    before, life = yield fetch_or_bit, block, index
    if before & bit:
        return NOT_ALLOCATED
    here = yield load, "live", block, w
    yield from name_if_first(cache, block, w, before, life)
    return OK if here & bit else NOT_ALLOCATED


def name_if_first(cache, block, w, before, life):
    if before == 0:
        summary = yield name_word, block, w, life
        if summary == 0:
            yield from push(cache, block, life)


# --- the right steps in the wrong order ---


def take_word_cleared_first(block, w):
    bits = yield take_all_bits, block, w
    had = yield load, "live", block, w
    yield store, had & ~bits, "live", block, w


def take_all_bits(memory, block, w):
    bits = memory["remote", block, w]
    clear_remote(memory, block, w)
    return bits


def drain_slab_cleared_first(block, objects):
    named = yield exchange, 0, "summary", block
    w = 0
    while w < words_of(objects):
        if named >> w & 1:
            yield from take_word_cleared_first(block, w)
        w += 1


def drain_reading_the_link_last(cache):
    block = yield exchange, 0, "stack", cache
    while block != 0:
        yield from drain_slab(block, cache[1])
        yield from retire_if_empty(block, cache[1])
        block = yield load, "link", block
