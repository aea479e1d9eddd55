"""The embedded PostgreSQL server of one home: start, stop, recover.

A cluster is made in a folder beside its place and renamed when whole, so a killed initdb leaves nothing half-made.
Every start writes `headwater.conf` anew. Passwords (scram-sha-256) are asked everywhere, on the unix socket too.
"""

import logging
import socket
from dataclasses import dataclass
from pathlib import Path

from connectors.errors import ResourceError
from platform_assets.warehouse.address import Address, Login
from platform_assets.warehouse.cluster import (
    HOST,
    init_cluster,
    log_since,
    refuse_other_version,
    run_program,
    set_lost_password,
    start_error,
    write_conf,
)
from platform_assets.warehouse.layout import Layout, layout_of
from platform_assets.warehouse.locks import home_lock
from platform_assets.warehouse.passwords import known_passwords, read_private, remembered, write_private
from platform_assets.warehouse.processes import end_orphans, find_postmaster, shut_down

log = logging.getLogger(__name__)

ADMIN_ROLE = "headwater_admin"
FIRST_PORT = 54320
START_SECONDS = 60
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
        return (self.home / "postgres").is_dir() and find_postmaster(layout_of(self.home)) is not None

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
            init_cluster(layout, login)
        refuse_other_version(layout)
        postmaster = find_postmaster(layout)
        if postmaster is not None and (not is_known or self.address("postgres") is None):
            log.warning("the files of a running server were removed: it is restarted with new ones")
            shut_down(postmaster, layout)
            postmaster = None
        if postmaster is None:
            end_orphans(layout)
            if not is_known and not is_new:
                set_lost_password(layout, login)
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
            postmaster = find_postmaster(layout)
            if postmaster is None:
                return False
            shut_down(postmaster, layout)
            log.info("warehouse stopped home=%s", self.home)
            return True

    def _launch(self, layout: Layout) -> None:
        wanted = read_private(self.home / PORT_FILE).get("port")
        for _ in range(5):
            port = _free_port(wanted)
            if wanted is not None and port != wanted:
                log.warning("port %s is taken by another program: the warehouse moved to port=%d", wanted, port)
            write_conf(layout, port)
            write_private(self.home / PORT_FILE, {"port": port, "socket_dir": str(layout.socket_dir)})
            log_start = layout.log_file.stat().st_size if layout.log_file.exists() else 0
            done = run_program(
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
            report = log_since(layout.log_file, log_start)
            # somebody took the port between the look and the start
            if "Address already in use" not in report:
                raise start_error(layout, report or done.stdout)
        raise ResourceError(
            f"{HOST}:{wanted or FIRST_PORT}",
            "five ports in a row were taken while the warehouse started",
            "End what listens there, or set HEADWATER_WAREHOUSE_URL to another server.",
        )


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
