"""Progress of long work, on one line that keeps being rewritten: of a terminal, or below the cell of a
Jupyter notebook.

Nothing is shown where nobody watches (no terminal), nor for work that is done before anyone
wonders.
"""

import importlib
import sys
import time

_PATIENCE = 0.5  # seconds before the first line
_INTERVAL = 0.1  # seconds between two


class Progress:
    """A context manager; `progress.step(label, total)` gives the callable that replay() wants."""

    def __init__(self, stream=None):
        self._screen = _screen(sys.stderr if stream is None else stream)
        self._next = time.monotonic() + _PATIENCE
        self._shown = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._shown:
            self._screen.show("")

    def step(self, label, total):
        """Says what comes next; None, which asks for no calls, where nobody watches."""
        if self._screen is None:
            return None
        return lambda done: self._show(label, done, total)

    def _show(self, label, done, total):
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _INTERVAL
        self._shown = True
        self._screen.show(f"{label}: {100 * done // max(total, 1)} %")


def _screen(stream):
    """Where progress is shown; None where nobody watches."""
    if _is_terminal(stream):
        return _Terminal(stream)
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return _Notebook() if hasattr(shell, "kernel") else None


def _is_terminal(stream):
    """Progress must not be what work fails of: sys.stderr may be None, closed, or anything."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


class _Terminal:
    def __init__(self, stream):
        self._stream = stream

    def show(self, text):
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()


class _Notebook:
    """An output of its own below the cell, which stays there empty."""

    def __init__(self):
        self._handle = None

    def show(self, text):
        output = {"text/plain": text}
        if self._handle is None:
            display = importlib.import_module("IPython.display").display
            self._handle = display(output, raw=True, display_id=True)
        else:
            self._handle.update(output, raw=True)
