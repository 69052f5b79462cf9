"""Progress of long work, on one line of a terminal that keeps being rewritten.

Nothing is shown where nobody watches (no terminal), nor for work that is done before anyone
wonders.
"""

import sys
import time

_PATIENCE = 0.5  # seconds before the first line
_INTERVAL = 0.1  # seconds between two


class Progress:
    """A context manager; `progress.step(label, total)` gives the callable that replay() wants."""

    def __init__(self, stream=None):
        self._stream = sys.stderr if stream is None else stream
        self._watched = self._stream is not None and self._stream.isatty()
        self._next = time.monotonic() + _PATIENCE
        self._shown = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def step(self, label, total):
        """Says what comes next; None, which asks for no calls, where nobody watches."""
        if not self._watched:
            return None
        return lambda done: self._show(label, done, total)

    def _show(self, label, done, total):
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _INTERVAL
        self._shown = True
        self._stream.write(f"\r\x1b[K{label}: {100 * done // max(total, 1)} %")
        self._stream.flush()
