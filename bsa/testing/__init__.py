"""Tests of allocators: bsa, or any other, by random programs that shrink to short scripts.

run_program() and what it needs work without Hypothesis; machines and strategies need it. Importing
this package imports neither, and registers nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import adapters, models, strategies
    from .adapters import CAllocator
    from .exerciser import AllocatorFault, ProgramError
    from .machines import AllocatorMachine, BuddyMachine, SlabMachine
    from .program import run_program
    from .shrink import shrink_program

__all__ = [
    "AllocatorFault",
    "AllocatorMachine",
    "BuddyMachine",
    "CAllocator",
    "ProgramError",
    "SlabMachine",
    "adapters",
    "models",
    "run_program",
    "shrink_program",
    "strategies",
]

_HOMES = {
    "AllocatorFault": "exerciser",
    "AllocatorMachine": "machines",
    "BuddyMachine": "machines",
    "CAllocator": "adapters",
    "ProgramError": "exerciser",
    "SlabMachine": "machines",
    "run_program": "program",
    "shrink_program": "shrink",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_HOMES.get(name, name)}")
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise ImportError(f"{__name__}.{name} needs Hypothesis: pip install hypothesis") from error
    return getattr(module, name) if name in _HOMES else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
