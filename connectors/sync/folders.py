"""Working folders: private, fresh, and never trusted after the sync that made them."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
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
