"""One cluster's files and PostgreSQL's own programs."""

import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from connectors.errors import ConfigError, ResourceError
from platform_assets.warehouse.address import Login
from platform_assets.warehouse.layout import Layout

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
MAJOR_VERSION = "18"


def init_cluster(layout: Layout, admin: Login) -> None:
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
    done = run_program(
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
        raise start_error(layout, done.stdout)
    with (work / "data" / "postgresql.conf").open("a", encoding="utf-8") as conf:
        conf.write("\ninclude_if_exists = 'headwater.conf'\n")
    (work / "data").rename(layout.data_dir)
    work.rmdir()
    log.info("warehouse cluster made data_dir=%s", layout.data_dir)


def set_lost_password(layout: Layout, login: Login) -> None:
    """Give the superuser of a stopped cluster the new password; who owns the files may do so in single-user mode."""
    statement = f"alter role {login.user} password '{login.password}'"
    done = run_program(layout, "postgres", "--single", "-D", str(layout.data_dir), "postgres", text=statement + "\n")
    if done.returncode or "ERROR" in done.stdout:
        raise start_error(layout, done.stdout)
    log.warning("the superuser's password was lost and is set anew home=%s", layout.data_dir.parent)


def refuse_other_version(layout: Layout) -> None:
    found = (layout.data_dir / "PG_VERSION").read_text(encoding="utf-8").strip()
    if found != MAJOR_VERSION:
        raise ConfigError(
            str(layout.data_dir),
            f"was made by PostgreSQL {found}, the embedded server is {MAJOR_VERSION}",
            "Move it aside, or dump it with the older version and restore it here.",
        )


def write_conf(layout: Layout, port: int) -> None:
    """Settings for bulk loads on a laptop; durability is never traded away."""
    import psutil

    memory_mb = psutil.virtual_memory().total >> 20
    settings = {
        "listen_addresses": HOST,
        "port": port,
        "unix_socket_directories": layout.socket_dir,
        "unix_socket_permissions": "0700",
        "password_encryption": "scram-sha-256",
        "max_connections": 250,
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


def run_program(layout: Layout, program: str, *args: str, text: str = "") -> "subprocess.CompletedProcess[str]":
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


def log_since(path: Path, offset: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def start_error(layout: Layout, report: str) -> ResourceError:
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
