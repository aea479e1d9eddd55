"""Working folders: private, fresh, and never trusted after the sync that made them."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from connectors.sync.result import SyncRequest

BASE_VARIABLE = "HEADWATER_WORK_DIR"


def base_folder() -> Path:
    """$HEADWATER_WORK_DIR, or a folder of this user's in the system's temporary folder."""
    chosen = os.environ.get(BASE_VARIABLE)
    base = Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"headwater-{os.getuid()}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    return base


@contextmanager
def sync_folder(request: SyncRequest, dsn: str, purpose: str = "sync") -> Generator[Path]:
    """A fresh folder of the stream's in this warehouse; a predecessor's is removed first.

    The caller holds the stream's lock in the warehouse of `dsn`. The name carries the warehouse too, for another
    platform on the same machine may have a stream of the same name.
    """
    warehouse = hashlib.sha256(dsn.rpartition("@")[2].encode()).hexdigest()[:8]
    folder = base_folder() / f"{request.source.source}.{request.stream.name}.{warehouse}.{purpose}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def process_folder(source: str) -> Generator[Path]:
    """A fresh folder for one run of a source's program; those that dead runs have left are removed first.

    A run holds a lock on its folder as long as it lives, so that one that is in use is never taken for left over.
    """
    base = base_folder()
    with ExitStack() as held:
        # while one run looks for left-overs, no other may be between making its folder and locking it
        with _locked(base, fcntl.LOCK_EX):
            for other in base.glob(f"{source}.process-*"):
                with suppress(OSError), _locked(other, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(other, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{source}.process-", dir=base))
            held.enter_context(_locked(folder, fcntl.LOCK_EX))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, how: int) -> Generator[None]:
    """Raises BlockingIOError while somebody else holds it and `how` says not to wait."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
