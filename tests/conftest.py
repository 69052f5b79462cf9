import gc
import importlib.util
import os
import pathlib
import signal

import pytest

pytest.register_assert_rewrite("helpers")

try:
    from hypothesis import HealthCheck, settings
except ImportError:
    pass
else:
    # No deadlines: sanitizer builds and busy machines are slow, and no test is about time.
    relaxed = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
    settings.register_profile("brief", max_examples=10, **relaxed)
    settings.register_profile("dev", max_examples=50, **relaxed)
    settings.register_profile("ci", max_examples=100, **relaxed)
    settings.register_profile("nightly", max_examples=5000, **relaxed)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# Children started by tests, in whatever directory, import the same bsa as the tests do, and a crash of theirs shows where.
_bsa = importlib.util.find_spec("bsa")
if _bsa is not None and _bsa.origin is not None:
    os.environ["PYTHONPATH"] = str(pathlib.Path(_bsa.origin).resolve().parent.parent)
os.environ["PYTHONFAULTHANDLER"] = "1"

# A job in the background of a shell ignores Ctrl-C, and so would the children of tests that send it to them.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def make():
    """Makes allocators; those still open after the test are checked and closed."""
    import bsa  # here: the tests of the C programs do without

    made = []

    def make_allocator(*arguments, **options):
        options.setdefault("cpus", 2)
        made.append(bsa.Allocator(*arguments, **options))
        return made[-1]

    def close(allocator):
        if not allocator.closed:
            allocator.check()
            try:
                allocator.close()
            except bsa.InUseError:
                gc.collect()  # frames of exceptions that the test caught may hold views
                allocator.close()

    yield make_allocator
    while made:
        close(made.pop())  # the last one first: it may lie inside a Block of another


@pytest.fixture
def heap(make):
    """16 MiB for two slots, checked and closed after the test."""
    return make(16 << 20)
