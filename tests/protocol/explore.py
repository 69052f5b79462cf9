"""Run a few threads in every possible order, and look at every state they can reach.

A thread is a generator function. It yields what it does to the shared memory, one atomic step at a time, as a tuple
(function, arguments...), and is sent what function(memory, arguments...) returned:

    def increment(counter):
        value = yield load, counter
        yield store, counter, value + 1

The shared memory is a dict with hashable values. Steps happen one after another and everybody sees them in that order:
the memory is sequentially consistent. A step returns WAIT, and changes nothing, where the thread cannot go on yet.

The search visits each state once. A state is the memory and each thread's place: the lines and local variables of its
generators. So that a place is all that matters for what comes next, nothing may be hidden between two steps:
a `yield` stands alone or on the right side of an assignment, never inside a `for`, `with` or `try`, and local
variables are hashable. `check_form` sees to that.

Cost: O(states * threads) steps. A thread is run anew for each place and answer met for the first time, never for a
state.
"""

import ast
import inspect
import textwrap

WAIT = object()


class Violation(Exception):
    """A step found that something which must never be is so."""


def check_form(module):
    """Whether every generator function of the module hides nothing between two steps; else AssertionError."""
    steps = (ast.Yield, ast.YieldFrom)
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, (ast.For, ast.With, ast.Try, ast.comprehension)):
            hidden = [inner for inner in ast.walk(node) if isinstance(inner, steps)]
            assert not hidden, f"line {hidden[0].lineno}: a step inside a {type(node).__name__}"
        elif not isinstance(node, (ast.Assign, ast.Expr, ast.Return)):
            hidden = [inner for inner in ast.iter_child_nodes(node) if isinstance(inner, steps)]
            assert not hidden, f"line {hidden[0].lineno}: a step inside an expression"


class Thread:
    """The places of one thread, learned as they are met; place 0 is the end."""

    def __init__(self, body, *arguments):
        self._start = lambda: body(*arguments)
        self._known = {None: 0}  # lines and variables -> place
        self._moves = {}  # (place, answer) -> place
        self._answers = [None]  # all answers on one of the ways to each place
        self.steps = [None]  # what is done at each place
        self.first = self._place_after(())

    def next(self, place, answer):
        """The place after the step at this place was answered so."""
        move = place, answer
        if move not in self._moves:
            self._moves[move] = self._place_after((*self._answers[place], answer))
        return self._moves[move]

    def _place_after(self, answers):
        generator = self._start()
        step = None
        try:
            step = next(generator)
            for answer in answers:
                step = generator.send(answer)
        except StopIteration:
            return 0
        where = _where(generator)
        if where not in self._known:
            self._known[where] = len(self.steps)
            self.steps.append(step)
            self._answers.append(answers)
        return self._known[where]


def _where(generator):
    frames = []
    while generator is not None:
        frame = generator.gi_frame
        frames.append((frame.f_code, frame.f_lasti, tuple(sorted(frame.f_locals.items()))))
        generator = generator.gi_yieldfrom
    return tuple(frames)


def explore(memory, threads, at_end):
    """Visits every state reachable from `memory`; the number of states.

    at_end(memory) is called for each state in which no thread can go on; like a step it raises Violation where
    something is wrong. A Violation that leaves here names the steps that lead to it, as few as possible.
    """
    names = list(memory)
    start = tuple(memory.values()), tuple(thread.first for thread in threads)
    came_from = {start: None}
    current = [start]
    while current:
        following = []
        for state in current:
            values, places = state
            stuck = True
            for number, (thread, place) in enumerate(zip(threads, places)):
                if place == 0:
                    continue
                function, *arguments = thread.steps[place]
                after = dict(zip(names, values))
                try:
                    answer = function(after, *arguments)
                except Violation as violation:
                    raise _explained(violation, came_from, state, number, threads) from None
                if answer is WAIT:
                    continue
                stuck = False
                moved = places[:number] + (thread.next(place, answer),) + places[number + 1 :]
                reached = tuple(after.values()), moved
                if reached not in came_from:
                    came_from[reached] = state, number
                    following.append(reached)
            if stuck:
                try:
                    at_end(dict(zip(names, values)))
                except Violation as violation:
                    raise _explained(violation, came_from, state, None, threads) from None
        current = following
    return len(came_from)


def _explained(violation, came_from, state, number, threads):
    lines = []
    while True:
        if number is not None:
            function, *arguments = threads[number].steps[state[1][number]]
            lines.append(f"thread {number}: {function.__name__} {arguments}")
        if came_from[state] is None:
            break
        state, number = came_from[state]
    story = "\n".join(reversed(lines))
    return Violation(f"{violation}\n{textwrap.indent(story, '  ')}")
