"""The embedded PostgreSQL server of one home: init, start, stop, recover.

A cluster is made in a folder beside its place and renamed when whole, so a killed initdb leaves nothing half-made.
Every start writes `headwater.conf` anew. Passwords (scram-sha-256) are asked everywhere, on the unix socket too.
"""

import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.errors import ConfigError, ResourceError
from platform_assets.warehouse.address import Address, Login
from platform_assets.warehouse.layout import Layout, layout_of
from platform_assets.warehouse.locks import home_lock
from platform_assets.warehouse.passwords import known_passwords, read_private, remembered, write_private

if TYPE_CHECKING:
    import psutil

log = logging.getLogger(__name__)

ADMIN_ROLE = "headwater_admin"
HOST = "127.0.0.1"
FIRST_PORT = 54320
START_SECONDS = 60
STOP_SECONDS = 60
PORT_FILE = "server.json"


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """The server whose data stands under `home`."""

    home: Path

    def known_admin(self) -> Login | None:
        """The superuser's login when this home has one; makes nothing."""
        password = known_passwords(self.home, [ADMIN_ROLE]).get(ADMIN_ROLE)
        return Login(ADMIN_ROLE, password) if password else None

    def address(self, database: str) -> Address | None:
        """Where the server listened when it last started; None when it never did."""
        found = read_private(self.home / PORT_FILE)
        if "port" not in found:
            return None
        return Address(HOST, int(found["port"]), database, socket_dir=str(found["socket_dir"]))

    def is_running(self) -> bool:
        """Whether the postmaster of this home lives (it may still be recovering)."""
        return (self.home / "postgres").is_dir() and _postmaster(layout_of(self.home)) is not None

    def start(self) -> tuple[Address, Login]:
        """Start the server when it does not run; its `postgres` database and superuser. Call under the home's lock.

        Raises:
            ResourceError: no disk, no memory, no port, or no answer in time.
            ConfigError: the data folder is of another major version.
        """
        layout = layout_of(self.home)
        is_known = self.known_admin() is not None
        login = Login(ADMIN_ROLE, remembered(self.home, [ADMIN_ROLE])[ADMIN_ROLE])
        is_new = not (layout.data_dir / "PG_VERSION").exists()
        if is_new:
            _init_cluster(layout, login)
        _refuse_other_version(layout)
        postmaster = _postmaster(layout)
        if postmaster is not None and (not is_known or self.address("postgres") is None):
            log.warning("the files of a running server were removed: it is restarted with new ones")
            _shut_down(postmaster, layout)
            postmaster = None
        if postmaster is None:
            _end_orphans(layout)
            if not is_known and not is_new:
                _set_lost_password(layout, login)
            self._launch(layout)
        address = self.address("postgres")
        if address is None:
            raise ResourceError(str(self.home / PORT_FILE), "was removed during the start", "Run this again.")
        return address, login

    def stop(self) -> bool:
        """Fast shutdown: sessions are ended, nothing committed is lost. False when no server ran."""
        if not (self.home / "postgres").is_dir():
            return False
        with home_lock(self.home):
            layout = layout_of(self.home)
            postmaster = _postmaster(layout)
            if postmaster is None:
                return False
            _shut_down(postmaster, layout)
            log.info("warehouse stopped home=%s", self.home)
            return True

    def _launch(self, layout: Layout) -> None:
        wanted = read_private(self.home / PORT_FILE).get("port")
        for _ in range(5):
            port = _free_port(wanted)
            if wanted is not None and port != wanted:
                log.warning("port %s is taken by another program: the warehouse moved to port=%d", wanted, port)
            _write_conf(layout, port)
            write_private(self.home / PORT_FILE, {"port": port, "socket_dir": str(layout.socket_dir)})
            log_start = layout.log_file.stat().st_size if layout.log_file.exists() else 0
            done = _run(
                layout,
                "pg_ctl",
                "start",
                "--wait",
                f"--timeout={START_SECONDS}",
                f"--pgdata={layout.data_dir}",
                f"--log={layout.log_file}",
            )
            if done.returncode == 0:
                log.info("warehouse started home=%s port=%d", self.home, port)
                return
            report = _log_since(layout.log_file, log_start)
            # somebody took the port between the look and the start
            if "Address already in use" not in report:
                raise _start_error(layout, report or done.stdout)
        raise ResourceError(
            f"{HOST}:{wanted or FIRST_PORT}",
            "five ports in a row were taken while the warehouse started",
            "End what listens there, or set HEADWATER_WAREHOUSE_URL to another server.",
        )


def _shut_down(postmaster: "psutil.Process", layout: Layout) -> None:
    """PostgreSQL's fast shutdown."""
    postmaster.send_signal(signal.SIGINT)
    if _still_alive([postmaster], STOP_SECONDS):
        raise ResourceError(
            f"warehouse (pid {postmaster.pid})",
            f"did not stop within {STOP_SECONDS} s",
            f"Read {layout.log_file}; a full disk makes the last checkpoint impossible.",
        )


def _set_lost_password(layout: Layout, login: Login) -> None:
    """Give the superuser of a stopped cluster the new password; who owns the files may do so in single-user mode."""
    statement = f"alter role {login.user} password '{login.password}'"
    done = _run(layout, "postgres", "--single", "-D", str(layout.data_dir), "postgres", text=statement + "\n")
    if done.returncode or "ERROR" in done.stdout:
        raise _start_error(layout, done.stdout)
    log.warning("the superuser's password was lost and is set anew home=%s", layout.data_dir.parent)


def _init_cluster(layout: Layout, admin: Login) -> None:
    parent = layout.data_dir.parent
    for left_over in parent.glob("init-*"):
        shutil.rmtree(left_over)
    if layout.data_dir.exists():
        # no PG_VERSION: not a cluster; kept aside, for it is not ours to throw away
        layout.data_dir.rename(Path(tempfile.mkdtemp(prefix="unknown-", dir=parent)) / "data")
    work = Path(tempfile.mkdtemp(prefix="init-", dir=parent))
    password_file = work / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(admin.password, encoding="utf-8")
    for path in (work, password_file):
        os.chown(path, layout.owner.uid, layout.owner.gid)
    done = _run(
        layout,
        "initdb",
        f"--pgdata={work / 'data'}",
        f"--username={admin.user}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--data-checksums",
    )
    password_file.unlink()
    if done.returncode:
        shutil.rmtree(work)
        raise _start_error(layout, done.stdout)
    with (work / "data" / "postgresql.conf").open("a", encoding="utf-8") as conf:
        conf.write("\ninclude_if_exists = 'headwater.conf'\n")
    (work / "data").rename(layout.data_dir)
    work.rmdir()
    log.info("warehouse cluster made data_dir=%s", layout.data_dir)


def _write_conf(layout: Layout, port: int) -> None:
    """Settings for bulk loads on a laptop; durability is never traded away."""
    import psutil

    memory_mb = psutil.virtual_memory().total >> 20
    settings = {
        "listen_addresses": HOST,
        "port": port,
        "unix_socket_directories": layout.socket_dir,
        "unix_socket_permissions": "0700",
        "password_encryption": "scram-sha-256",
        "max_connections": 200,
        "shared_buffers": f"{min(max(memory_mb // 16, 64), 512)}MB",
        "effective_cache_size": f"{max(memory_mb // 4, 256)}MB",
        "maintenance_work_mem": "128MB",
        "work_mem": "16MB",
        "fsync": "on",
        "synchronous_commit": "on",
        # logical replication reads from it; a loaded table costs a little more WAL
        "wal_level": "logical",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
        "wal_recycle": "on",
        "max_wal_senders": 10,
        "max_replication_slots": 10,
        # a crashed writer must not hold its snapshot or its locks for ever
        "idle_in_transaction_session_timeout": "1h",
        "tcp_keepalives_idle": 30,
        "tcp_keepalives_interval": 10,
        "tcp_keepalives_count": 3,
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        "log_min_duration_statement": -1,
        "log_line_prefix": "%m [%p] %u@%d ",
        "cluster_name": "headwater",
    }
    path = layout.data_dir / "headwater.conf"
    lines = [f"{name} = '{str(value).replace(chr(39), chr(39) * 2)}'\n" for name, value in settings.items()]
    path.write_text("# written at every start\n" + "".join(lines), encoding="utf-8")
    os.chown(path, layout.owner.uid, layout.owner.gid)


def _run(layout: Layout, program: str, *args: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    """Run one of PostgreSQL's programs as the server's user, `text` on its stdin, with both outputs in `stdout`."""
    # a pipe would stay open in the server that pg_ctl leaves behind
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as given:
        given.write(text)
        given.seek(0)
        other: dict[str, Any] = (
            {"user": layout.owner.uid, "group": layout.owner.gid, "extra_groups": []} if layout.owner.is_other else {}
        )
        done = subprocess.run(  # noqa: S603  our own programs, no shell
            [str(layout.bin_dir / program), *args],
            check=False,
            stdin=given,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            umask=0o077,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            **other,
        )
        output.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, output.read(), "")


def _is_alive(process: "psutil.Process") -> bool:
    """A zombie is dead: who adopts a server (a container's first process) may never ask for its status."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _still_alive(processes: "list[psutil.Process]", seconds: float) -> "list[psutil.Process]":
    """Those that have not ended after `seconds`."""
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if _is_alive(process)]) and time.monotonic() < deadline:
        # they are not children of ours: nothing to wait on
        time.sleep(0.01)
    return alive


def _postmaster(layout: Layout) -> "psutil.Process | None":
    """The living postmaster of this data folder; a reused pid is told apart by its working folder."""
    import psutil

    try:
        pid = int((layout.data_dir / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        process = psutil.Process(pid)
        is_ours = _is_alive(process) and Path(process.cwd()) == layout.data_dir
    except (FileNotFoundError, NotADirectoryError, ValueError, psutil.Error):
        return None
    return process if is_ours else None


def _end_orphans(layout: Layout) -> None:
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
        for process in _still_alive(orphans, seconds=10):
            process.kill()
        _still_alive(orphans, seconds=10)
    # PostgreSQL itself takes a zombie's pid, or a reused one, for a running server
    (layout.data_dir / "postmaster.pid").unlink(missing_ok=True)
    for left_over in layout.socket_dir.glob(".s.PGSQL.*"):
        left_over.unlink()


def _free_port(wanted: object) -> int:
    """The wanted port when it is free, otherwise the next free one from FIRST_PORT."""
    first = [wanted] if isinstance(wanted, int) else []
    for port in [*first, *range(FIRST_PORT, FIRST_PORT + 200)]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ResourceError(
        f"{HOST}:{FIRST_PORT}-{FIRST_PORT + 199}",
        "every port is taken",
        "End what listens there, or set HEADWATER_WAREHOUSE_URL to another server.",
    )


def _refuse_other_version(layout: Layout) -> None:
    found = (layout.data_dir / "PG_VERSION").read_text(encoding="utf-8").strip()
    wanted = "18"
    if found != wanted:
        raise ConfigError(
            str(layout.data_dir),
            f"was made by PostgreSQL {found}, the embedded server is {wanted}",
            "Move it aside, or dump it with the older version and restore it here.",
        )


def _log_since(path: Path, offset: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _start_error(layout: Layout, report: str) -> ResourceError:
    """What PostgreSQL said, in one line, with the next step."""
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "PANIC" in line or "error" in line.lower()] or lines[-1:]
    said = (telling[0] if telling else "pg_ctl said nothing")[-300:]
    where = f"warehouse ({layout.data_dir})"
    if "No space left on device" in report or "Disk quota exceeded" in report:
        return ResourceError(
            where, f"the disk is full: {said}", "Free some space, then run this again: nothing is lost."
        )
    if "shared memory" in report or "Cannot allocate memory" in report:
        return ResourceError(
            where, f"no shared memory: {said}", "End other programs or give the container more memory."
        )
    return ResourceError(
        where, f"PostgreSQL did not start: {said}", f"Read {layout.log_file}, then run `headwater doctor`."
    )
