"""A device that is really full: ENOSPC from the kernel, in the working folder and under the warehouse itself."""

import os
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from connectors.errors import ResourceError
from platform_assets.settings import Settings
from platform_assets.warehouse import Warehouse, ensure_warehouse, stop_warehouse
from tests.crash.history import DISPOSITIONS, verify
from tests.crash.victim import Paged, sync, sync_earlier
from tests.support.servers import short_folder

Note = Callable[..., None]
FREE_BYTES = 64 << 10
"""What a full device leaves to its owner before the test, so that the first writes still succeed."""


@contextmanager
def device(folder: Path, size_mb: int) -> Generator[Path]:
    """A file system of its own, in memory."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0711", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave_bytes: int) -> Path:
    """A file that takes the rest of the device."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    os.truncate(path, path.stat().st_size - leave_bytes)
    return path


@pytest.mark.parametrize(
    "disposition", ["append", *(pytest.param(name, marks=pytest.mark.slow) for name in list(DISPOSITIONS)[1:])]
)
def test_a_full_device_under_the_working_folder(
    warehouse: Warehouse, matrix: Note, work_folder: Path, disposition: str
) -> None:
    matrix(disposition, "device of the working folder full")
    sync_earlier(warehouse.loader_dsn, disposition)
    with device(work_folder, 1):
        filler: list[Path] = []
        with pytest.raises(ResourceError, match="no space left"):
            sync(warehouse.loader_dsn, disposition, Paged({3: lambda: filler.append(fill(work_folder, 0))}))
        filler[0].unlink()
        sync(warehouse.loader_dsn, disposition)
        assert list(work_folder.iterdir()) == [], "a left-over folder"
    verify(warehouse, disposition)


@pytest.mark.slow
@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_a_full_device_under_the_warehouse(matrix: Note, disposition: str) -> None:
    """The whole cluster, its WAL included, is on the device: PostgreSQL itself has to stop or to refuse."""
    matrix(disposition, "device of the warehouse full")
    with short_folder() as folder, device(folder / "home", 400) as home:
        settings = Settings(home=home)
        warehouse = ensure_warehouse(settings)
        try:
            sync_earlier(warehouse.loader_dsn, disposition, padding=10_000)
            filler: list[Path] = []
            big = Paged({3: lambda: filler.append(fill(home, FREE_BYTES))}, padding=10_000)
            with pytest.raises(ResourceError, match="has no room"):
                sync(warehouse.loader_dsn, disposition, big)
            filler[0].unlink()
            warehouse = ensure_warehouse(settings)
            sync(warehouse.loader_dsn, disposition, Paged(padding=10_000))
            verify(warehouse, disposition)
        finally:
            stop_warehouse(settings)
