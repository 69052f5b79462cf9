"""The remote-free protocol of csrc/core/slab.c and cache.c, as threads for explore.py.

Line by line what the C code does, with the memory made small. A slab is a block of pages cut into a few objects, two to
a word of its bitmaps; a class is known by how many objects its slabs have. An owner gives each empty slab back at once,
the keenest that the rules allow, and another slot may make a slab of another class of the block.

    ("word", block)             FREE, CHANGING, or the slab's cache: (slot, objects)
    ("live", block, w), ("remote", block, w), ("summary", block), ("link", block)
    ("stack", cache)            the slabs with remote frees: the number of the first, counted from 1; 0: none

What the code does not have, the model adds, to know what is true:

    ("held", block, index)      whether the object is handed out
    ("life", block)             how often the block has been given back
    ("at", freer)               the word it looks at, until that is drained
    "overlaps"                  bits that drains found on both sides
    "residue"                   double frees accepted because the word came to hold the same bits again
    "misuse"                    whether there are double frees

Left out: the lists of a cache (its owner's own affair), spurious failures of compare-and-exchange (they change
nothing), and memory orders: explore.py is sequentially consistent. ThreadSanitizer watches the real code for those.
"""

from explore import WAIT, Violation

FREE, CHANGING = "free", "changing"
OK, NOT_ALLOCATED = "ok", "not allocated"
WORD_BITS = 2
MOST_WORDS = 2


def words_of(objects):
    return -(-objects // WORD_BITS)


def valid_bits(objects, w):
    return (1 << max(0, min(objects - w * WORD_BITS, WORD_BITS))) - 1


def empty_memory(caches, freers, blocks, misuse):
    memory = {("stack", cache): 0 for cache in caches}
    memory.update({("at", freer): None for freer in freers})
    for block in range(1, blocks + 1):
        memory.update({("word", block): FREE, ("summary", block): 0, ("link", block): 0})
        memory["life", block] = 0
        for w in range(MOST_WORDS):
            memory.update({("live", block, w): 0, ("remote", block, w): 0})
        for index in range(MOST_WORDS * WORD_BITS):
            memory["held", block, index] = False
    for counter in ("overlaps", "residue", "accepted"):
        memory[counter,] = 0
    memory["handed out",] = None
    memory["misuse",] = misuse
    return memory


def add_full_slab(memory, block, cache):
    """Makes the block a slab of which every object is live."""
    memory["word", block] = cache
    for w in range(words_of(cache[1])):
        memory["live", block, w] = valid_bits(cache[1], w)
    for index in range(cache[1]):
        memory["held", block, index] = True


# --- atomic steps ---


def load(memory, *name):
    return memory[name]


def store(memory, value, *name):
    memory[name] = value


def exchange(memory, value, *name):
    before, memory[name] = memory[name], value
    return before


def compare_exchange(memory, expected, value, *name):
    """The value as it was: if that is the one expected, the exchange took place."""
    before = memory[name]
    if before == expected:
        memory[name] = value
    return before


def fetch_and(memory, bits, *name):
    before = memory[name]
    memory[name] &= bits
    return before


def wait_for(memory, value, *name):
    return None if memory[name] == value else WAIT


def wait_for_other_than(memory, value, *name):
    return WAIT if memory[name] == value else None


# --- atomic steps of a freer ---


def look_at_remote(memory, freer, block, w):
    memory["at", freer] = block, w
    return memory["remote", block, w]


def set_bit(memory, freer, block, index, expected):
    """Sets the object's bit by compare-and-exchange. The word as it was, and the slab's life if the object was live
    until now."""
    w, bit = divmod(index, WORD_BITS)
    before = memory["remote", block, w]
    if before != expected:
        memory["at", freer] = block, w  # goes on with the word as it is now
        return before, None
    return before, bit_was_set(memory, freer, block, index, before)


def bit_was_set(memory, freer, block, index, before):
    """What is true now that the freer has set the object's bit in a word that was `before`."""
    w, bit = divmod(index, WORD_BITS)
    memory["remote", block, w] |= 1 << bit
    was_drained = memory["at", freer] is None
    memory["at", freer] = None
    if memory["held", block, index]:
        memory["held", block, index] = False
        return memory["life", block]
    if before != 0:  # the freer has done, and thinks all is well
        if not was_drained:
            raise Violation(f"a double free of object {index} was accepted")
        memory["residue",] += 1
    return None


def look_at_live_again(memory, block, index, life):
    """The live word. A double free whose bit was the remote word's first, and that finds the object handed out anew,
    frees it from under its new owner."""
    w, bit = divmod(index, WORD_BITS)
    here, remote = memory["live", block, w], memory["remote", block, w]
    if life is None and (remote & here) >> bit & 1:
        memory["held", block, index] = False
    return here


def expect_life(memory, block, life):
    """Who has freed a live object relies on its slab being there until the free is over. A racing double free may
    have named the word for it; then it writes a name and a link that mean nothing."""
    if life is not None and memory["life", block] != life and not memory["misuse",]:
        raise Violation("a freer touched a slab that had been given back")


def name_word(memory, block, w, life):
    expect_life(memory, block, life)
    before = memory["summary", block]
    memory["summary", block] |= 1 << w
    return before


def set_link(memory, block, top, life):
    expect_life(memory, block, life)
    memory["link", block] = top


def set_top(memory, cache, top, block, life):
    expect_life(memory, block, life)
    return compare_exchange(memory, top, block, "stack", cache)


def accept(memory, status):
    memory["accepted",] += status == OK


def expect_accepted(memory, status):
    if status != OK:
        raise Violation("a good free was refused")


# --- a freer: bsa_object_free, bsa_slab_free_remote, bsa_cache_push_remote ---


def free_remote(freer, block, index):
    """Frees the object; OK or NOT_ALLOCATED."""
    w, bit = index // WORD_BITS, 1 << index % WORD_BITS
    cache = yield load, "word", block
    if cache in (FREE, CHANGING):
        return NOT_ALLOCATED

    before = yield look_at_remote, freer, block, w
    while True:
        if before & bit:
            return NOT_ALLOCATED
        here = yield load, "live", block, w
        if not here & bit:
            return NOT_ALLOCATED
        seen, life = yield set_bit, freer, block, index, before
        if seen == before:
            break
        before = seen
    if before != 0:
        return OK

    status = OK
    here = yield look_at_live_again, block, index, life
    if not here & bit:
        left = yield fetch_and, ~bit, "remote", block, w
        if left & ~bit == 0:
            return NOT_ALLOCATED
        status = NOT_ALLOCATED
    summary = yield name_word, block, w, life
    if summary == 0:
        yield from push(cache, block, life)
    return status


def push(cache, block, life=None):
    top = yield load, "stack", cache
    while True:
        yield set_link, block, top, life
        seen = yield set_top, cache, top, block, life
        if seen == top:
            return
        top = seen


# --- atomic steps of an owner ---


def clear_remote(memory, block, w):
    memory["remote", block, w] = 0
    for name, value in memory.items():
        if value == (block, w) and name[0] == "at":
            memory[name] = None


def take_bits(memory, block, w, bits, had):
    """Clears the remote word by compare-and-exchange; the word as it was."""
    before = memory["remote", block, w]
    if before == bits:
        clear_remote(memory, block, w)
        memory["overlaps",] += (bits & ~had).bit_count()
    return before


def is_empty(memory, block, objects):
    return not any(memory["live", block, w] for w in range(words_of(objects)))


def destroy(memory, block):
    if any(memory["held", block, index] for index in range(MOST_WORDS * WORD_BITS)):
        raise Violation("a slab with live objects was given back")
    memory["word", block] = CHANGING
    memory["life", block] += 1


def take_block(memory, block):
    if memory["word", block] != FREE:
        return WAIT
    memory["word", block] = CHANGING


def hand_out(memory, block, index, here):
    w, bit = divmod(index, WORD_BITS)
    if memory["held", block, index]:
        raise Violation(f"object {index} was handed out twice")
    memory["held", block, index] = True
    memory["live", block, w] = here | 1 << bit


def take_back(memory, block, index, here):
    w, bit = divmod(index, WORD_BITS)
    memory["held", block, index] = False
    memory["live", block, w] = here & ~(1 << bit)


# --- an owner: bsa_cache_drain, bsa_slab_drain, keep_or_retire ---


def take_word(block, w):
    had = yield load, "live", block, w
    bits = yield load, "remote", block, w
    while True:
        yield store, had & ~bits, "live", block, w
        seen = yield take_bits, block, w, bits, had
        if seen == bits:
            return
        bits = seen


def drain_slab(block, objects):
    named = yield exchange, 0, "summary", block
    w = 0
    while w < words_of(objects):
        if named >> w & 1:
            yield from take_word(block, w)
        w += 1


def retire_if_empty(block, objects):
    empty = yield is_empty, block, objects
    if not empty:
        return
    summary = yield load, "summary", block
    if summary == 0:
        yield destroy, block
        yield store, FREE, "word", block


def forward(block, word):
    if word in (FREE, CHANGING):
        yield store, 0, "summary", block
    else:
        yield from push(word, block)


def drain(cache, drain_slab=drain_slab):
    """Takes back what others have freed."""
    block = yield exchange, 0, "stack", cache
    while block != 0:
        word = yield load, "word", block
        following = yield load, "link", block
        if word == cache:
            yield from drain_slab(block, cache[1])
            yield from retire_if_empty(block, cache[1])
        else:
            yield from forward(block, word)
        block = following


def free_local(block, index, objects):
    """The owner's own free of a live object."""
    w = index // WORD_BITS
    here = yield load, "live", block, w
    yield take_back, block, index, here
    yield from retire_if_empty(block, objects)


def make_slab(block, cache):
    """Waits until the block is free, and makes it a slab."""
    yield take_block, block
    w = 0
    while w < words_of(cache[1]):
        here = yield load, "live", block, w
        remote = yield load, "remote", block, w
        if here | remote:
            yield store, 0, "live", block, w
            yield clear_remote, block, w
        w += 1
    yield store, cache, "word", block


def take(block, index):
    """Hands the object out; False: it is not free. (The code takes the first one that is.)"""
    w, bit = divmod(index, WORD_BITS)
    here = yield load, "live", block, w
    if here >> bit & 1:
        return False
    yield hand_out, block, index, here
    return True


# --- threads ---


def freer(me, objects, free=free_remote):
    """Frees the live objects, (block, index) each, one after another; each free must succeed."""
    turn = 0
    while turn < len(objects):
        status = yield from free(me, *objects[turn])
        yield expect_accepted, status
        turn += 1


def racer(me, block, index, free=free_remote):
    """Frees an object that others free as well."""
    status = yield from free(me, block, index)
    yield accept, status


def owner(cache, drain=drain):
    """Drains whenever something waits for it, for ever."""
    while True:
        yield wait_for_other_than, 0, "stack", cache
        yield from drain(cache)


def owner_that_frees(block, index, cache):
    """Frees one object itself, and drains for ever."""
    yield from free_local(block, index, cache[1])
    yield from owner(cache)


def owner_that_hands_out(block, cache, objects):
    """Hands out these objects anew, one after another, as they come back; and drains for ever."""
    turn = 0
    while turn < len(objects):
        yield wait_for_other_than, 0, "stack", cache
        yield from drain(cache)
        word = yield load, "word", block
        if word != cache:
            break
        taken = yield from take(block, objects[turn])
        if taken:
            yield wait_for, None, "handed out"
            yield store, objects[turn], "handed out"
            turn += 1
    yield from owner(cache)


def next_owner(block, cache):
    """Makes a slab of the block as soon as it is free, hands out one object, and drains for ever."""
    yield from make_slab(block, cache)
    yield from take(block, 0)
    yield from owner(cache)


def freer_of_what_comes(me, block):
    """Frees the objects that are handed out anew, as they come."""
    while True:
        yield wait_for_other_than, None, "handed out"
        index = yield exchange, None, "handed out"
        yield from racer(me, block, index)


def next_freer(me, block, index, cache):
    """Frees the object that the next owner hands out."""
    yield wait_for, cache, "word", block
    yield wait_for, True, "held", block, index
    yield from freer(me, ((block, index),))


def next_racer(me, block, index, cache):
    """The same, where a late double free may do so, too."""
    yield wait_for, cache, "word", block
    yield wait_for, True, "held", block, index
    yield from racer(me, block, index)


# --- when all have done ---


def run(memory, generator):
    """One thread, alone."""
    answer = None
    try:
        while True:
            function, *arguments = generator.send(answer)
            answer = function(memory, *arguments)
    except StopIteration:
        pass


def expect_stacks_drained(memory, drain=drain):
    """Once the owners have drained and trimmed, every name has been taken."""
    caches = [name[1] for name in memory if name[0] == "stack"]
    blocks = [name[1] for name in memory if name[0] == "word"]
    for cache in caches * 2:  # again, for what the second forwards to the first
        run(memory, drain(cache))
    for block in blocks:
        if memory["word", block] != FREE:
            run(memory, retire_if_empty(block, memory["word", block][1]))
        if memory["summary", block] != 0:
            raise Violation("a slab with remote frees is on no stack")


def expect_sound(memory, drain=drain):
    """And all that was freed has come back, and what is live has stayed."""
    expect_stacks_drained(memory, drain)
    for name, word in memory.items():
        if name[0] == "word" and word != FREE:
            expect_slab_sound(memory, name[1], word[1])


def expect_slab_sound(memory, block, objects):
    live = [memory["held", block, index] for index in range(objects)]
    for index in range(objects):
        w, bit = divmod(index, WORD_BITS)
        is_free = not memory["live", block, w] >> bit & 1
        if live[index] and is_free:
            raise Violation(f"object {index} is live and free")
        if not live[index] and not is_free:
            raise Violation(f"the free of object {index} was lost")
    if not any(live):
        raise Violation("an empty slab was kept")
