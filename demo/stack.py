"""All demo sources at once, started and ended together.

    with DemoStack(home) as stack:
        stack.serve_database(admin_url, host, port)
        os.environ.update(stack.environment())

Nothing outlives the stack: leaving the block ends the API by its process id, and a parent that was killed closes the
pipe that the API watches. What the sources remember between two runs lies in `<home>/demo`.
"""

import hashlib
import http.client
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.database import ensure_reference_database
from demo.files import publish_weather
from demo.release import Release, read_release, write_release
from demo.webhooks import DeliveryError, send_deliveries

log = logging.getLogger(__name__)

API_PORT = 8731
"""Tried first, so that an .env written once keeps its address; any free port otherwise."""

START_SECONDS = 30.0
STOP_SECONDS = 5.0


class DemoError(Exception):
    """A demo source did not start; the message says which, what was seen, and where its log is."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Generated once per home; readable by its owner only."""

    api_token: str
    database_password: str

    @property
    def webhook_secret(self) -> str:
        """What the webhook sender signs with; made from the token, so that a folder of an older stack has it too."""
        return hashlib.sha256(f"webhooks {self.api_token}".encode()).hexdigest()


class DemoStack:
    """The three demo sources under one folder.

    Args:
        home: the platform's folder (HEADWATER_HOME); the stack uses `<home>/demo`.
        refuse_every: of so many API requests one gets 429 and one 503; 0 refuses none.
    """

    def __init__(self, home: Path, *, refuse_every: int = 12) -> None:
        self.folder = home.resolve() / "demo"
        self.weather_folder = self.folder / "weather"
        self._release_file = self.folder / "release.json"
        self._refuse_every = refuse_every
        self._api: subprocess.Popen[bytes] | None = None
        self._api_url = ""
        self._database_url = ""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.credentials = _ensure_credentials(self.folder / "credentials.json")

    def __enter__(self) -> Self:
        try:
            publish_weather(self.weather_folder, self.released)
            self._start_api()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def released(self) -> Release:
        return read_release(self._release_file)

    def release(self, release: Release) -> None:
        """Show so much of the data from now on; running sources follow at once."""
        write_release(self._release_file, release)
        publish_weather(self.weather_folder, release)

    def serve_database(self, admin_url: str, host: str, port: int) -> None:
        """Put the reference database on a PostgreSQL server that somebody else runs."""
        self._database_url = ensure_reference_database(admin_url, host, port, self.credentials.database_password)

    def send_deliveries(self, url: str) -> int:
        """Send all webhook deliveries to a receiver that somebody else runs; how many it took.

        Raises:
            DemoError: it refused one, or does not answer.
        """
        try:
            return send_deliveries(url, self.credentials.webhook_secret)
        except (DeliveryError, OSError, http.client.HTTPException) as error:
            raise DemoError(f"demo webhooks: {error}") from error

    def environment(self) -> Mapping[str, str]:
        """What the source files refer to: addresses and credentials of the running sources."""
        found = {
            "FLIGHTS_API_URL": self._api_url,
            "FLIGHTS_API_TOKEN": self.credentials.api_token,
            "WEATHER_FILES": str(self.weather_folder),
            "GITHUB_DEMO_SECRET": self.credentials.webhook_secret,
        }
        return {**found, "REFERENCE_DB_URL": self._database_url} if self._database_url else found

    @property
    def api_pid(self) -> int | None:
        return self._api.pid if self._api else None

    def stop(self) -> None:
        """End the API; twice is fine."""
        api, self._api = self._api, None
        if api is None:
            return
        if api.stdin:
            api.stdin.close()
        try:
            api.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("flights api did not end in %.0f s, killed pid=%d", STOP_SECONDS, api.pid)
            api.kill()
            api.wait()

    def _start_api(self) -> None:
        log_path = self.folder / "api.log"
        with _listen() as listening, log_path.open("ab") as output:
            port = listening.getsockname()[1]
            self._api = subprocess.Popen(
                [
                    *(sys.executable, "-m", "demo.api", "--fd", str(listening.fileno())),
                    *("--release-file", str(self._release_file), "--refuse-every", str(self._refuse_every)),
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[listening.fileno()],
                cwd=Path(__file__).parent.parent,
                env={**os.environ, "FLIGHTS_API_TOKEN": self.credentials.api_token},
                # Ctrl-C in a terminal reaches the whole group; the stack alone decides when the API ends
                start_new_session=True,
            )
        self._api_url = f"http://127.0.0.1:{port}"
        _await_health(self._api_url, self._api, log_path)
        log.info("flights api started url=%s pid=%d", self._api_url, self._api.pid)


def _listen() -> socket.socket:
    """A listening socket on loopback: the usual port, or any free one when it is taken."""
    try:
        return socket.create_server(("127.0.0.1", API_PORT), backlog=128)
    except OSError:
        return socket.create_server(("127.0.0.1", 0), backlog=128)


def _await_health(url: str, api: subprocess.Popen[bytes], log_path: Path) -> None:
    """The socket listens already, so one request waits until the API answers it."""
    deadline = time.monotonic() + START_SECONDS
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=START_SECONDS) as answer:  # noqa: S310 our own http URL
            answer.read()
    except (urllib.error.URLError, OSError) as error:
        seconds = START_SECONDS - (deadline - time.monotonic())
        state = f"it ended with status {api.poll()}" if api.poll() is not None else "it is still running"
        last = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise DemoError(
            f"demo flights API: no answer on {url}/health after {seconds:.0f} s ({error}); {state}.\n"
            f"{''.join(last)}\nRead {log_path}, then run the command again."
        ) from error


def _ensure_credentials(path: Path) -> Credentials:
    if path.exists():
        return Credentials(**json.loads(path.read_text(encoding="utf-8")))
    made = Credentials(secrets.token_urlsafe(24), secrets.token_urlsafe(24))
    fresh = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(asdict(made), file)
    # link refuses to replace: of two starts at once the first one's credentials stay
    try:
        path.hardlink_to(fresh)
    except FileExistsError:
        return Credentials(**json.loads(path.read_text(encoding="utf-8")))
    finally:
        fresh.unlink()
    return made
