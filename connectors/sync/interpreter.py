"""How Python is set for syncs: for threads that wait most of the time, and much that is imported and never garbage."""

import atexit
import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

_SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python to itself while others want it; 5 ms by default. Those that read and publish come
back from the network a hundred times a second, and would wait so long each time while dlt is imported."""
_COLLECT_EVERY = 10_000
"""New objects between two looks for garbage; 700 by default, which one page of records exceeds many times."""


@cache
def tune() -> None:
    """For the rest of the process."""
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
    gc.set_threshold(max(gc.get_threshold()[0], _COLLECT_EVERY), *gc.get_threshold()[1:])
    # a process that ends looks through all its modules for garbage: 0.2 s
    atexit.register(gc.freeze)


@contextmanager
def importing() -> Generator[None]:
    """Modules are no garbage: to look for some among them is a tenth of an import, and of what comes after it."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if collects:
            gc.enable()
