"""The processes of one cluster, told apart from strangers by their working folder."""

import logging
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.errors import ResourceError
from platform_assets.warehouse.layout import Layout

if TYPE_CHECKING:
    import psutil

log = logging.getLogger(__name__)

STOP_SECONDS = 60
ORPHAN_SECONDS = 10.0


def find_postmaster(layout: Layout) -> "psutil.Process | None":
    """The living postmaster of this data folder; a reused pid is told apart by its working folder."""
    import psutil

    try:
        pid = int((layout.data_dir / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        process = psutil.Process(pid)
        is_ours = _is_alive(process) and Path(process.cwd()) == layout.data_dir
    except (FileNotFoundError, NotADirectoryError, ValueError, psutil.Error):
        return None
    return process if is_ours else None


def shut_down(postmaster: "psutil.Process", layout: Layout) -> None:
    """PostgreSQL's fast shutdown."""
    postmaster.send_signal(signal.SIGINT)
    if still_alive([postmaster], STOP_SECONDS):
        raise ResourceError(
            f"warehouse (pid {postmaster.pid})",
            f"did not stop within {STOP_SECONDS} s",
            f"Read {layout.log_file}; a full disk makes the last checkpoint impossible.",
        )


def end_orphans(layout: Layout) -> None:
    """Make way for a start: wait for the backends of a killed postmaster, and drop the files that name it."""
    import psutil

    orphans: list[psutil.Process] = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "postgres" and Path(process.cwd()) == layout.data_dir:
                orphans.append(process)
        except psutil.Error:
            continue
    if orphans:
        log.warning("waiting for processes=%d of a killed server", len(orphans))
        for process in still_alive(orphans, ORPHAN_SECONDS):
            process.kill()
        still_alive(orphans, ORPHAN_SECONDS)
    # PostgreSQL itself takes a zombie's pid, or a reused one, for a running server
    (layout.data_dir / "postmaster.pid").unlink(missing_ok=True)
    for left_over in layout.socket_dir.glob(".s.PGSQL.*"):
        left_over.unlink()


def still_alive(processes: "list[psutil.Process]", seconds: float) -> "list[psutil.Process]":
    """Those that have not ended after `seconds`."""
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if _is_alive(process)]) and time.monotonic() < deadline:
        # they are not children of ours: nothing to wait on
        time.sleep(0.01)
    return alive


def _is_alive(process: "psutil.Process") -> bool:
    """A zombie is dead: who adopts a server (a container's first process) may never ask for its status."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
