"""Cutting a program that fails down to what it needs.

Hypothesis shrinks what was drawn, and gives up when it has tried for a while. Here the program
itself is known: a request goes together with all that is done with its handle, and the handles of
later requests move down.
"""

import re
from collections.abc import Iterator, Mapping
from inspect import signature
from typing import Any

import bsa

from .exerciser import AllocatorFault, Exerciser, MakeAllocator, Program, ProgramError, Step
from .program import do_all, exerciser_for, run_program

HANDLES = ("handle", "other", "handles")  # names of the parameters of steps that are handles


def shrink_program(
    program: Mapping[str, Any], make_allocator: MakeAllocator = bsa.Allocator, tries: int = 1000
) -> Program:
    """A program that fails, without the steps that it does not need, and with smaller numbers.

    The result fails in the same way. `tries`: the most programs to run. ProgramError: the program
    does not fail, or cannot be run.
    """
    best = {**program, "steps": [tuple(step) for step in program.get("steps", ())]}
    fault, exerciser = _run(best, make_allocator)
    if fault is None:
        run_program(program, make_allocator)  # which raises what is wrong with the program, if so
        raise ProgramError("the program does not fail")
    kind = kind_of(fault)
    while kind and exerciser is not None:
        best["steps"] = exerciser.program["steps"]  # not what follows the fault
        for steps in _smaller(exerciser, best["steps"]):
            tries -= 1
            fault, exerciser = _run({**best, "steps": steps}, make_allocator)
            found = kind_of(fault)
            if found == kind or tries <= 0:
                break
        else:
            return best
        if found != kind:
            return best
        best = {**best, "steps": steps}
    return best


def kind_of(fault: AllocatorFault | None) -> str:
    """What is told of the fault, but for values; empty if there is none."""
    if fault is None:
        return ""
    kind = re.sub(r"\b(0x)?[0-9a-f]*[0-9][0-9a-f]*\b", "#", fault.told)
    return re.split(r" is |[\[({]", kind)[0]


def measure(program: Program) -> tuple[int, int]:
    """What is to become smaller: the number of steps, then the sum of their numbers."""
    numbers = [value for step in program["steps"] for value in step if isinstance(value, int)]
    return len(program["steps"]), sum(numbers)


def fault_of(program: Program, make_allocator: MakeAllocator) -> AllocatorFault | None:
    """The fault that the program shows, if any."""
    return _run(program, make_allocator)[0]


def _run(
    program: Program, make_allocator: MakeAllocator
) -> tuple[AllocatorFault | None, Exerciser | None]:
    """The fault that the program shows, and what has run it."""
    exerciser = None
    try:
        exerciser = exerciser_for(program, make_allocator)
        do_all(exerciser, program["steps"])
    except AllocatorFault as fault:
        return fault, exerciser
    except ProgramError:
        pass
    finally:
        if exerciser is not None:
            exerciser.abandon()
    return None, exerciser


def _smaller(exerciser: Exerciser, steps: list[Step]) -> Iterator[list[Step]]:
    """The steps with something less: half of them, ... one of them, a part of a number."""
    length = len(steps) // 2
    while length:
        for start in reversed(range(len(steps) - length + 1)):
            yield _without(exerciser, steps, range(start, start + length))
        length //= 2
    for at, step in enumerate(steps):
        names = ("", *signature(getattr(exerciser, step[0])).parameters)
        for place, (name, value) in enumerate(zip(names, step)):
            for less in _less(name, value):
                smaller = (*step[:place], less, *step[place + 1 :])
                yield [*steps[:at], smaller, *steps[at + 1 :]]


def _less(name: str, value: object) -> Iterator[int | None]:
    """Smaller values for an argument. An alignment stays one."""
    if type(value) is not int or value <= 0:
        return
    if name == "align":
        yield None
        yield from (1 << order for order in range(value.bit_length() - 1))
    else:
        yield from sorted({0, value // 2, value - 1})


def _without(exerciser: Exerciser, steps: list[Step], gone: range) -> list[Step]:
    """All but those steps, and what is done with what they have made."""
    made = [exerciser.made[at] for at in gone if at < len(exerciser.made)]
    handles = {handle for of_step in made for handle in of_step}
    rest = [step for at, step in enumerate(steps) if at not in gone]
    return [new for step in rest if (new := _renumbered(exerciser, step, handles))]


def _renumbered(exerciser: Exerciser, step: Step, gone: set[int]) -> Step:
    """The step where the handles that are gone were never given; empty if it needs one of them."""
    name, *arguments = step
    for at, parameter in enumerate(signature(getattr(exerciser, name)).parameters):
        if parameter in HANDLES and at < len(arguments):
            value = arguments[at]
            handles = value if isinstance(value, list) else [value]
            kept = [h - sum(other < h for other in gone) for h in handles if h not in gone]
            if not kept:
                return ()
            arguments[at] = kept if isinstance(value, list) else kept[0]
    return (name, *arguments)
