"""Programs: steps written down, to be run again without Hypothesis."""

from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

import bsa

from .exerciser import (
    FLAGS,
    AllocatorFault,
    Exerciser,
    MakeAllocator,
    Program,
    ProgramError,
    Step,
    options_of,
)
from .heap import HeapExerciser
from .pages import PageExerciser
from .raw import RawExerciser
from .slabs import SlabExerciser


def exerciser_class(machine: str, allocator: object) -> type[Exerciser]:
    """What does the steps of that machine on that allocator."""
    ours = isinstance(allocator, bsa.Allocator)
    if machine == "allocator":
        return HeapExerciser if ours else RawExerciser
    classes: dict[str, type[Exerciser]] = {"buddy": PageExerciser, "slab": SlabExerciser}
    if machine not in classes:
        raise ProgramError(f"no machine is named {machine!r}")
    if not ours:
        raise ProgramError(f"the machine {machine!r} is for bsa.Allocator, not for {allocator!r}")
    return classes[machine]


def expect_program(program: Mapping[str, Any], make_allocator: MakeAllocator) -> None:
    """What can be said of a program before it runs."""
    for name in ("machine", "setup", "steps"):
        if name not in program:
            raise ProgramError(f"the program has no {name!r}")
    for name in program.get("flags", {}):
        if name not in FLAGS:
            raise ProgramError(f"no flag is named {name!r}")
    if make_allocator is bsa.Allocator:
        for name in options_of(program["setup"]):
            if name not in signature(bsa.Allocator).parameters:
                raise ProgramError(f'bsa.Allocator has no parameter {name!r}, which "setup" has')


def exerciser_for(program: Mapping[str, Any], make_allocator: MakeAllocator) -> Exerciser:
    """An exerciser for a program, none of whose steps it has done yet."""
    expect_program(program, make_allocator)
    machine, setup = program["machine"], program["setup"]
    try:
        allocator = make_allocator(**options_of(setup))
    except Exception as error:
        told = f"make_allocator() raised {type(error).__name__}: {error}"
        raise AllocatorFault(told) from error
    kind = exerciser_class(machine, allocator)
    return kind(machine, setup, program.get("flags", {}), make_allocator, allocator)


def run_program(program: Mapping[str, Any], make_allocator: MakeAllocator = bsa.Allocator) -> None:
    """Do the steps of a program, give everything back, and check that all is as it should be.

    program: a dict as a failing machine prints it: "machine" ("buddy", "slab" or "allocator"),
    "setup" (arguments of make_allocator, and "regions" to add), "steps" (tuples: name, arguments),
    and "flags" where the machine has any. make_allocator: what makes the allocator under test.

    Raises AllocatorFault if the allocator does wrong, naming the step; ProgramError (a ValueError)
    if it lacks a key, has an unknown one, or a step that cannot be done: unknown, with a wrong
    argument, a handle that is not live, or for a method that the allocator has not.

    If the environment has BSA_TESTING_LOG, the program so far is written to the file that it names
    before each step, and is there if the step ends the process.
    """
    exerciser = exerciser_for(program, make_allocator)
    try:
        do_all(exerciser, program["steps"])
    except BaseException:
        exerciser.abandon()
        raise


def do_all(exerciser: Exerciser, steps: Iterable[Step]) -> None:
    """From the start to the end."""
    exerciser.start()
    for name, *arguments in steps:
        exerciser.do(name, *arguments)
    exerciser.finish()


def script(program: Program, runner: str = "run_program", module: str = "bsa.testing") -> str:
    """A script that runs the program, by what `module` has: run_program, or a machine's run."""
    lines = [f"from {module} import {runner.partition('.')[0]}", "", f"{runner}(", "    {"]
    for name, value in program.items():
        if name == "steps":
            lines += ['        "steps": [', *map(_line, value), "        ],"]
        else:
            lines.append(f'        "{name}": {_quoted(value)},')
    return "\n".join([*lines, "    }", ")"])


def _line(step: Step) -> str:
    return f"            {_quoted(step)},"


def _quoted(value: Any) -> str:
    """repr() with double quotes, which steps and setups have no others of."""
    return repr(value).replace("'", '"')
