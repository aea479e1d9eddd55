"""One process at a time in a home."""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from connectors.errors import ResourceError

PATIENCE_SECONDS = 120.0


@contextmanager
def home_lock(home: Path, patience: float = PATIENCE_SECONDS) -> Generator[None]:
    """Hold the home's file lock; the kernel frees it when the process dies.

    Raises:
        ResourceError: another process held it for longer than `patience` seconds.
    """
    path = home / "lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ResourceError(
                        str(path),
                        f"another process has been starting or stopping the warehouse for {patience:.0f} s",
                        "Look for a stuck `headwater` process, end it, and run this again.",
                    ) from None
                # flock has no timeout of its own
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)
