"""An on_oom that checks how it is asked, and answers in one of several ways."""

from collections.abc import Callable
from typing import Any

import bsa

from .exerciser import ProgramError, blame, expect, expect_equal

# Say no; raise; free the older half of what is live, or add a region, and say "try again".
ANSWERS = ("refuse", "fail", "free", "extend")

MOST_SECTIONS = 3  # that on_oom adds to
METADATA = 8192  # bytes enough for that of a region of 16 pages


class Unwilling(Exception):
    """What on_oom raises where it is to fail."""


class Request:
    """A request under way, and what on_oom has said to it."""

    def __init__(self, nbytes: int, expect_refused: Callable[[], None], busy: int | None) -> None:
        self.nbytes, self.expect_refused = nbytes, expect_refused
        self.busy = busy  # handle of what is being resized
        self.times_asked = 0
        self.is_asking = self.may_go_on = False
        self.error: type[Exception] = bsa.OutOfMemoryError  # what it must raise if it fails


class OnOom:
    """What a heap's on_oom is set to. `exerciser`: the HeapExerciser of that heap."""

    def __init__(self, exerciser: Any, answer: str) -> None:
        if answer not in ANSWERS:
            raise ProgramError(f"on_oom has no such answer: {answer!r}")
        self.exerciser, self.answer = exerciser, getattr(self, answer)

    def __call__(self, allocator: Any, nbytes: int) -> bool:
        request = self.exerciser.under_way
        expect(request is not None, "on_oom is asked, and no request can have failed")
        expect(not request.is_asking, "on_oom is asked from within itself")
        if allocator is not self.exerciser.heap.wrapped:
            blame(f"on_oom is given {allocator!r}")
        expect_equal(nbytes, request.nbytes, "the number of bytes that on_oom is told")
        refused = request.times_asked and not request.may_go_on
        expect(not refused, "on_oom is asked again, and has said no")
        request.times_asked += 1
        self.exerciser.failed(request)
        request.is_asking, request.may_go_on = True, False
        self.misuse(request)
        request.may_go_on = self.answer(request)
        request.is_asking = False
        return bool(request.may_go_on)

    def misuse(self, request: Request) -> None:
        """Ask for too much, of which on_oom hears nothing, and take hold of what is being resized."""
        exerciser = self.exerciser
        exerciser.ask_for_too_much()
        block = None if request.busy is None else exerciser.live[request.busy].block
        if block is not None:
            for name in ("free", "detach"):
                exerciser.refused(bsa.InUseError, exerciser.call, name, getattr(block, name))

    def refuse(self, request: Request) -> bool:
        return False

    def fail(self, request: Request) -> bool:
        request.error = Unwilling
        raise Unwilling

    def free(self, request: Request) -> bool:
        handles = [handle for handle in self.exerciser.handles() if handle != request.busy]
        for handle in handles[: (len(handles) + 1) // 2]:
            self.exerciser.let_go(handle)
        return bool(handles)

    def extend(self, request: Request) -> bool:
        exerciser = self.exerciser
        if len(exerciser.pieces) >= MOST_SECTIONS or not exerciser.can["has_sections"]:
            return False
        exerciser.extend(0, METADATA + 16 * exerciser.page_size)
        return True
