"""Every order in which a few threads can free, drain, give back and reuse: none breaks the protocol of remote frees.

And the protocols that look simpler (docs/design.md tells of them) do break.
"""

import functools

import broken
import explore
import pytest
import remote_free as model
from explore import Thread, Violation

# Caches: their slot, and how many objects the slabs of their class have.
SMALL, LARGE = (0, 3), (1, 1)


def full_slabs(*caches, others=(), misuse=False):
    """A memory with one slab of each cache, all live; block 1 is the first one's."""
    memory = model.empty_memory({*caches, *others}, "wxyz", len(caches), misuse)
    for block, cache in enumerate(caches, 1):
        model.add_full_slab(memory, block, cache)
    return memory


def explored(memory, *threads, at_end=model.expect_sound):
    explore.explore(memory, threads, at_end)


@pytest.mark.parametrize("module", [model, broken])
def test_the_model_hides_nothing_between_two_steps(module):
    explore.check_form(module)


def expect_accepted(memory, count):
    if memory["accepted",] != count:
        raise Violation(f"{memory['accepted',]} frees were accepted, not {count}")
    model.expect_sound(memory)


# --- good frees ---


def test_no_free_is_lost_and_no_freer_touches_a_slab_that_has_been_given_back():
    """Bit, name, push, drain, retirement; and all of it once more in the life of another slot's slab."""
    explored(
        full_slabs(SMALL, others=[LARGE]),
        Thread(model.freer, "x", ((1, 0), (1, 2))),
        Thread(model.freer, "y", ((1, 1),)),
        Thread(model.owner, SMALL),
        Thread(model.next_owner, 1, LARGE),
        Thread(model.next_freer, "z", 1, 0, LARGE),
    )


def test_three_freers_meet_in_one_slab():
    explored(
        full_slabs((0, 4), others=[LARGE]),
        Thread(model.freer, "x", ((1, 0), (1, 2))),
        Thread(model.freer, "y", ((1, 1),)),
        Thread(model.freer, "z", ((1, 3),)),
        Thread(model.owner, (0, 4)),
        Thread(model.next_owner, 1, LARGE),
    )


def test_the_owner_may_free_the_last_object_itself():
    explored(
        full_slabs(SMALL, others=[LARGE]),
        Thread(model.freer, "x", ((1, 0),)),
        Thread(model.freer, "y", ((1, 2),)),
        Thread(model.owner_that_frees, 1, 1, SMALL),
        Thread(model.next_owner, 1, LARGE),
        Thread(model.next_freer, "z", 1, 0, LARGE),
    )


@pytest.mark.parametrize("slabs", [[(0, 2), (0, 2)], [(0, 1), (0, 1), (0, 1)]])
def test_slabs_on_one_stack_do_not_lose_each_other(slabs):
    last = len(slabs)
    explored(
        full_slabs(*slabs),
        Thread(model.freer, "x", tuple((1, index) for index in range(slabs[0][1]))),
        Thread(model.freer, "y", ((last, 0),)),
        Thread(model.freer, "z", ((2, slabs[1][1] - 1),)),
        Thread(model.owner, slabs[0]),
    )


def test_objects_may_be_handed_out_again_between_drains():
    explored(
        full_slabs((0, 4)),
        Thread(model.freer, "x", ((1, 0),)),
        Thread(model.freer, "y", ((1, 1), (1, 2))),
        Thread(model.owner_that_hands_out, 1, (0, 4), (0, 2)),
        Thread(model.freer_of_what_comes, "z", 1),
        at_end=lambda memory: expect_accepted(memory, 2),
    )


# --- double frees ---


def test_of_racing_frees_of_one_object_exactly_one_is_accepted():
    explored(
        full_slabs((0, 4)),
        Thread(model.racer, "x", 1, 0),
        Thread(model.racer, "y", 1, 0),
        Thread(model.freer, "z", ((1, 1), (1, 2))),
        Thread(model.owner, (0, 4)),
        at_end=lambda memory: expect_accepted(memory, 1),
    )


def racers_while_an_object_is_handed_out_anew(index):
    return (
        Thread(model.racer, "x", 1, 1),
        Thread(model.racer, "y", 1, 1),
        Thread(model.freer, "w", ((1, 0),)),
        Thread(model.owner_that_hands_out, 1, (0, 4), (index,)),
        Thread(model.freer_of_what_comes, "z", 1),
    )


def test_a_double_free_passes_only_if_the_word_came_to_hold_the_same_bits_again_and_the_drain_tells():
    """Another object of the word is freed, drained, handed out and freed anew, all between two steps."""
    passed = set()

    def expect_told(memory):
        model.expect_sound(memory)
        if memory["residue",] != memory["overlaps",]:
            raise Violation("a double free was accepted, and no drain has told")
        passed.add(memory["residue",])

    explored(full_slabs((0, 4)), *racers_while_an_object_is_handed_out_anew(0), at_end=expect_told)
    assert passed == {0, 1}


def test_a_double_free_after_the_object_was_handed_out_anew_may_hit_its_new_owner_and_damages_nothing():
    explored(full_slabs((0, 4)), *racers_while_an_object_is_handed_out_anew(1))


def expect_others_unharmed(memory):
    model.expect_stacks_drained(memory)
    if memory["word", 2] != model.FREE:
        raise Violation("another slab of the stack was lost")


def test_a_double_free_in_a_slab_that_is_given_back_and_made_anew_harms_no_other_slab():
    """Not even where it leaves the slab on two stacks. The object that it hits may be lost."""
    memory = full_slabs((0, 1), (0, 1), others=[(1, 2)], misuse=True)
    model.run(memory, model.freer("w", ((2, 0),)))  # waits on the stack
    explored(
        memory,
        Thread(model.racer, "x", 1, 0),
        Thread(model.racer, "y", 1, 0),
        Thread(model.owner, (0, 1)),
        Thread(model.next_owner, 1, (1, 2)),
        Thread(model.next_racer, "z", 1, 0, (1, 2)),
        at_end=expect_others_unharmed,
    )


# --- what looks simpler, and is wrong ---


def expect_broken(match, memory, *threads, at_end=model.expect_sound):
    with pytest.raises(Violation, match=match):
        explored(memory, *threads, at_end=at_end)


def draining(drain_slab):
    """An owner's drain with another way to drain one slab."""
    return functools.partial(model.drain, drain_slab=drain_slab)


def test_a_flag_set_after_the_bit_is_written_into_a_slab_that_has_been_given_back():
    expect_broken(
        "a freer touched a slab that had been given back",
        full_slabs(SMALL),
        Thread(model.freer, "x", ((1, 0), (1, 1)), broken.free_and_raise_flag),
        Thread(model.freer, "y", ((1, 2),), broken.free_and_raise_flag),
        Thread(model.owner, SMALL, draining(broken.drain_every_word)),
    )


def test_bits_that_are_taken_though_not_named_let_a_freer_touch_a_slab_that_has_been_given_back():
    expect_broken(
        "a freer touched a slab that had been given back|a good free was refused",
        full_slabs(SMALL),
        Thread(model.freer, "x", ((1, 0), (1, 1))),
        Thread(model.freer, "y", ((1, 2),)),
        Thread(model.owner, SMALL, draining(broken.drain_every_word)),
    )


def test_count_and_list_head_in_two_words_forget_a_free():
    memory = full_slabs((0, 2))
    broken.add_list(memory)
    expect_broken(
        "the free of object . was lost",
        memory,
        Thread(model.freer, "x", ((1, 0),), broken.push_and_count),
        Thread(model.freer, "y", ((1, 1),), broken.push_and_count),
        Thread(broken.owner_of_list, (0, 2)),
        at_end=lambda memory: model.expect_sound(memory, broken.drain_list),
    )


def test_a_fetch_or_after_a_look_accepts_a_double_free():
    expect_broken(
        "a double free was accepted",
        full_slabs((0, 4)),
        Thread(model.racer, "x", 1, 0, broken.look_and_fetch_or),
        Thread(model.racer, "y", 1, 0, broken.look_and_fetch_or),
        Thread(model.owner, (0, 4)),
    )


def test_a_look_after_a_fetch_or_refuses_a_good_free():
    expect_broken(
        "a good free was refused",
        full_slabs((0, 4)),
        Thread(model.freer, "x", ((1, 0),), broken.fetch_or_and_look),
        Thread(model.freer, "y", ((1, 1),), broken.fetch_or_and_look),
        Thread(model.owner, (0, 4)),
    )


def test_clearing_the_remote_word_first_accepts_a_double_free():
    expect_broken(
        "2 frees were accepted",
        full_slabs((0, 4)),
        Thread(model.racer, "x", 1, 0),
        Thread(model.racer, "y", 1, 0),
        Thread(model.owner, (0, 4), draining(broken.drain_slab_cleared_first)),
        at_end=lambda memory: expect_accepted(memory, 1),
    )


def test_reading_the_link_after_the_drain_loses_slabs_of_the_stack():
    expect_broken(
        "is on no stack|was lost",
        full_slabs((0, 2), (0, 2), (0, 2)),
        Thread(model.freer, "x", ((1, 0),)),
        Thread(model.freer, "y", ((2, 0), (2, 1))),
        Thread(model.owner, (0, 2), broken.drain_reading_the_link_last),
        at_end=lambda memory: model.expect_sound(memory, broken.drain_reading_the_link_last),
    )
