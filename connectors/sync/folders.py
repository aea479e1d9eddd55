"""Working folders: private, fresh, and never trusted after the sync that made them."""

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
def sync_folder(request: SyncRequest, purpose: str = "sync") -> Generator[Path]:
    """A fresh folder of the stream's; a predecessor's is removed first (the caller holds the stream's lock)."""
    folder = base_folder() / f"{request.source.source}.{request.stream.name}.{purpose}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
