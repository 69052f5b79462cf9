"""Programs: steps written down, to be run again without Hypothesis."""

from collections.abc import Iterable, Mapping
from typing import Any

import bsa

from .exerciser import (
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


def exerciser_for(program: Mapping[str, Any], make_allocator: MakeAllocator) -> Exerciser:
    """An exerciser for a program, none of whose steps it has done yet."""
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
    if a step cannot be done, because it is unknown or its handle is not live.
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
