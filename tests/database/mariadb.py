"""A real MariaDB for the tests where its server is installed (Debian: mariadb-server-core)."""

import getpass
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REASON = "no mariadbd and mariadb-install-db on PATH (Debian: apt-get install mariadb-server-core)"
READY = "ready for connections"


def is_installed() -> bool:
    return bool(shutil.which("mariadbd") and shutil.which("mariadb-install-db"))


@dataclass(frozen=True, slots=True)
class MariaServer:
    """user `root` without password, on loopback."""

    port: int

    def url(self, user: str = "root", password: str = "", database: str = "shop") -> str:
        login = f"{user}:{password}" if password else user
        return f"mysql+pymysql://{login}@127.0.0.1:{self.port}/{database}?charset=utf8mb4"


@contextmanager
def running_mariadb() -> Generator[MariaServer]:
    """A server of its own, ended and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-mariadb-"))
    user = f"--user={getpass.getuser()}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    try:
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/data", user, "--skip-test-db",
             "--auth-root-authentication-method=normal"],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        process = subprocess.Popen(
            ["mariadbd", "--no-defaults", f"--datadir={folder}/data", f"--socket={folder}/socket", f"--port={port}",
             "--bind-address=127.0.0.1", user, "--innodb-flush-log-at-trx-commit=0"],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            # its log is awaited, not the clock; a server that ends closes the pipe
            lines: list[str] = []
            for line in process.stderr:
                lines.append(line)
                if READY in line:
                    break
            else:
                raise AssertionError("MariaDB did not start:\n" + "".join(lines[-10:]))
            yield MariaServer(port)
        finally:
            process.terminate()
            process.communicate(timeout=60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
