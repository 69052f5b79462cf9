"""What every exerciser does: steps, by name and with plain arguments, and blame.

An exerciser owns the allocator under test and a model of it. Each step calls the allocator and
checks what it did; a step's arguments are numbers that mean the same in every run (handles,
offsets, sizes), never addresses. So the steps that were done are a program, which `run_program`
runs again. Nothing here needs Hypothesis.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from inspect import Parameter, signature
from typing import Any, ClassVar, NoReturn, TypeAlias

Step: TypeAlias = tuple[Any, ...]
Program: TypeAlias = dict[str, Any]  # "machine", "setup", "steps"; "flags" where there are any
Errors: TypeAlias = type[Exception] | tuple[type[Exception], ...]
MakeAllocator: TypeAlias = Callable[..., Any]

# What a machine may say of an allocator.
FLAGS = (
    "has_alignment has_zero has_realloc has_usable_size has_bulk has_close has_blocks has_pages"
    " has_cpus has_sections has_limit has_on_oom detects_double_free detects_interior_free"
    " detects_foreign_free default_alignment merges"
).split()

LOG = "BSA_TESTING_LOG"  # environment variable: a file for the program as far as it has come

START = ("the start",)
END = ("the end, when everything is given back",)


class AllocatorFault(AssertionError):
    """The allocator did wrong. The text names the step that showed it.

    `step` is that step, a tuple as in the program; `told` the text without it.
    """

    step: Step = ()
    told: str = ""


class ProgramError(ValueError):
    """A program has a step that cannot be done: an unknown name, a handle that is not live."""


def blame(text: str) -> NoReturn:
    raise AllocatorFault(text)


def expect(condition: object, text: str) -> None:
    """What must hold, or the allocator is at fault."""
    if not condition:
        blame(text)


def expect_equal(seen: object, expected: object, what: str) -> None:
    if seen != expected:
        blame(f"{what} is {seen!r} instead of {expected!r}")


def expect_argument(parameter: Parameter, value: Any) -> None:
    """What an argument of any step must be, or the program is wrong."""
    name, kind = parameter.name, parameter.annotation
    if not isinstance(value, list if kind == list[int] else kind):
        raise ProgramError(f"{name} is {value!r}, of another type than {kind}")
    if name == "align" and value is not None and (value < 1 or value & (value - 1)):
        raise ProgramError(f"align is {value!r}, neither None nor a power of two")
    if isinstance(value, int) and value < (name == "every"):
        raise ProgramError(f"{name} is {value!r}, too small")


class Watched:
    """An allocator all of whose calls go through Exerciser.call()."""

    def __init__(self, wrapped: Any, call: Callable[..., Any]) -> None:
        self.__dict__.update(wrapped=wrapped, call=call)

    def __getattr__(self, name: str) -> Any:
        value = self.call(name, getattr, self.wrapped, name)
        if not callable(value):
            return value
        return lambda *arguments, **options: self.call(f"{name}()", value, *arguments, **options)

    def __setattr__(self, name: str, value: Any) -> None:
        self.call(name, setattr, self.wrapped, name, value)

    def __len__(self) -> int:
        length: int = self.call("len()", len, self.wrapped)
        return length

    def __contains__(self, address: object) -> bool:
        found: bool = self.call("in", lambda: address in self.wrapped)
        return found


class Exerciser:
    """Runs steps against an allocator. Steps are the methods that `step_names` lists.

    `setup` is how the allocator was made, `flags` what its machine says of it; both are part of the
    program. `make_allocator` makes another one like `allocator`, of the same options.
    """

    step_names: ClassVar[frozenset[str]]
    can: Mapping[str, Any] = {}  # what the allocator has, and promises

    def __init__(
        self,
        machine: str,
        setup: Mapping[str, Any],
        flags: Mapping[str, Any],
        make_allocator: MakeAllocator,
        allocator: Any,
    ) -> None:
        self.machine, self.setup, self.flags = machine, dict(setup), dict(flags)
        self.steps: list[Step] = []
        # Each request has a handle, also one that fails: the others' do not depend on it.
        self.requests = 0
        self.made: list[range] = []  # the handles of each step
        self._make_allocator = make_allocator
        self._raised: BaseException | None = None
        self._raised_by = ""
        self.heap = Watched(allocator, self.call)

    # --- for subclasses

    def begin(self) -> None:
        """What is done once."""
        self.open()

    def open(self) -> None:
        """Get to know the new allocator, self.heap, which nothing was asked of yet."""
        raise NotImplementedError

    def verify(self) -> None:
        """What holds after each step."""
        raise NotImplementedError

    def drain(self) -> None:
        """Give everything back, and check what must hold then."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the allocator and of all that is live."""
        raise NotImplementedError

    def state(self) -> dict[str, object]:
        """All that a refused call must leave alone, as far as it can be seen."""
        return {}

    # --- for steps

    def new_handle(self) -> int:
        self.requests += 1
        return self.requests - 1

    def make_another(self) -> None:
        """A new allocator in the place of the old one, which is closed."""
        options = options_of(self.setup)
        made = self.call("make_allocator()", self._make_allocator, **options)
        self.heap = Watched(made, self.call)

    def call(self, name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call the allocator or what it has made. What it raises is its fault, unless caught."""
        try:
            return function(*arguments, **options)
        except Exception as error:
            self._raised, self._raised_by = error, name
            raise

    def forgive(self, error: BaseException) -> None:
        """The allocator was right to raise this. Its frames would keep alive what it was given."""
        error.__traceback__ = None
        self._raised = None

    def raises(
        self, errors: Errors, function: Callable[..., Any], *arguments: Any, **options: Any
    ) -> None:
        """Call what must raise one of `errors`."""
        try:
            function(*arguments, **options)
        except errors as error:
            self.forgive(error)
        else:
            blame("what had to be refused was done")

    def refused(
        self, errors: Errors, function: Callable[..., Any], *arguments: Any, **options: Any
    ) -> None:
        """Call what must raise one of `errors`, and change nothing."""
        before = self.state()
        self.raises(errors, function, *arguments, **options)
        for name, after in self.state().items():
            expect_equal(after, before[name], f"{name} after a refused call")

    # --- running

    @property
    def program(self) -> Program:
        """The steps so far, as run_program() takes them."""
        program: Program = {"machine": self.machine, "setup": self.setup}
        if self.flags:
            program["flags"] = self.flags
        program["steps"] = [self._short(step) for step in self.steps]
        return program

    def log(self) -> None:
        """Write down the program where LOG says, for the case that the next call ends the process.

        The file holds a dict as a literal, a step a line.
        """
        if path := os.environ.get(LOG):
            try:
                with open(path, "w") as file:
                    file.write(repr(self.program).replace("), (", "),\n("))
            except OSError as error:
                raise ProgramError(f"{LOG}: {error}") from None

    def _short(self, step: Step) -> Step:
        """The step without arguments that are the default."""
        name, *arguments = step
        parameters = list(signature(getattr(self, name)).parameters.values())
        while arguments and arguments[-1] is parameters[len(arguments) - 1].default:
            arguments.pop()
        return (name, *arguments)

    def start(self) -> None:
        """What comes before the first step."""
        with self._blaming(START):
            self.log()
            self.begin()
            self.verify()

    def do(self, name: str, *arguments: Any) -> None:
        """Do a step, and check everything. AllocatorFault if the allocator does wrong."""
        self.steps.append((name, *arguments))
        before = self.requests
        with self._blaming(self.steps[-1]):
            step = self._step(name, arguments)
            self.log()
            try:
                step()
            finally:
                self.made.append(range(before, self.requests))
            self.verify()

    def _step(self, name: str, arguments: Sequence[Any]) -> Callable[[], None]:
        if name not in self.step_names:
            raise ProgramError(f"the machine {self.machine!r} has no such step")
        method = getattr(self, name)
        try:
            bound = signature(method).bind(*arguments)
        except TypeError as error:
            raise ProgramError(str(error)) from None
        for parameter, value in bound.arguments.items():
            expect_argument(bound.signature.parameters[parameter], value)
        return partial(method, *arguments)

    def finish(self) -> None:
        """What follows the last step: give everything back, check what holds then, and close."""
        with self._blaming(END):
            self.drain()
            self.close()

    def abandon(self) -> None:
        """What follows a fault: let go, as far as a broken allocator lets us."""
        with suppress(Exception):
            self.close()

    @contextmanager
    def _blaming(self, step: Step) -> Iterator[None]:
        """Say of a fault at which step it showed; what the allocator raised unasked is one."""
        try:
            yield
        except AllocatorFault as fault:
            raise self._located(str(fault), step) from fault.__cause__
        except ProgramError as error:
            raise ProgramError(f"{self._name(step)}: {error}") from None
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if error is self._raised:
                text = f"{self._raised_by} raised {text}"
            else:
                text = f"what it gave could not even be checked: {text}"
            raise self._located(text, step) from error
        finally:
            self._raised = None

    def _name(self, step: Step) -> str:
        if step in (START, END):
            return str(step[0])
        return f"step {len(self.steps) - 1}, {step!r}"

    def _located(self, text: str, step: Step) -> AllocatorFault:
        fault = AllocatorFault(f"{self._name(step)}: {text}")
        fault.step, fault.told = step, text
        return fault


def options_of(setup: Mapping[str, Any]) -> dict[str, Any]:
    """What make_allocator() is given. Regions are added by the exerciser itself."""
    return {name: value for name, value in setup.items() if name != "regions"}
