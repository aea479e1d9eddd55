"""`headwater up`: the Dagster UI with daemon, demo sources and both code locations, until Ctrl-C."""

import http.client
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectors.errors import ResourceError
from platform_assets.cli import output
from platform_assets.cli.children import end_child
from platform_assets.cli.context import read_settings

if TYPE_CHECKING:
    from platform_assets.settings import Settings

HOST = "127.0.0.1"
PORT = 3000
START_SECONDS = 180.0
STOP_SECONDS = 90.0
POLL_SECONDS = 0.3
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    __typename ... on PythonError { message errorChain { error { message } } } } } } } }"""


def command(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the UI; the next free one when it is taken.")
    ] = PORT,
    sources_only: Annotated[
        bool, typer.Option("--sources-only", help="Serve only the demo sources, e.g. beside `dagster dev`.")
    ] = False,
) -> None:
    """Serve the Dagster UI on 127.0.0.1 with daemon, demo sources and both code locations. Ctrl-C ends all of it."""
    from platform_assets.cli.demo_services import (
        demo_sources,
        interrupted_by_sigterm,
        running_warehouse,
        runs_environment,
    )

    settings = read_settings()
    with interrupted_by_sigterm(), ExitStack() as ends:
        try:
            warehouse = ends.enter_context(running_warehouse(settings, output.note))
            stack = ends.enter_context(demo_sources(settings, warehouse, output.note))
            if sources_only:
                path = _write_environment(settings, stack.environment())
                output.note(f"the demo sources run until Ctrl-C. In another terminal: set -a; . {path}; dagster dev")
                threading.Event().wait()
            _serve(settings, free_port(port), runs_environment(settings, stack))
        except KeyboardInterrupt:
            output.note("Ctrl-C: ending the UI, its runs and the demo sources")


def free_port(wanted: int) -> int:
    """The wanted port, or the next free one of twenty, or any; says so when it is another."""
    for port in (*range(wanted, min(wanted + 20, 65536)), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            found = int(probe.getsockname()[1])
        if found != wanted:
            output.note(f"port {wanted} is taken by another program: the UI uses port {found}")
        return found
    raise ResourceError(f"{HOST}:{wanted}", "no port is free", "End some programs that listen, then try again.")


def _write_environment(settings: "Settings", environment: Mapping[str, str]) -> Path:
    """The sources' settings as a shell reads them; in a file, because nothing secret is ever printed."""
    path = settings.home / "demo" / "sources.env"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.writelines(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
    return path


def _serve(settings: "Settings", port: int, environment: Mapping[str, str]) -> None:
    """`dagster dev` until it ends or is interrupted.

    Raises:
        ResourceError: it ended by itself, or did not answer in time.
    """
    log_path = settings.home / "dagster" / "ui.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    workspace = settings.project_root / "workspace.yaml"
    words = ["dagster", "dev", "--workspace", str(workspace), "--host", HOST, "--port", str(port)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", "platform_assets.cli.watched", *words],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=settings.project_root,
            env={**os.environ, **environment},
            # Ctrl-C reaches this process alone, which then ends the others in order
            start_new_session=True,
        )
    try:
        output.note("loading the code locations (about 15 s)")
        await_answer(f"http://{HOST}:{port}/server_info", process, log_path)
        print(f"Dagster UI: http://{HOST}:{port}   (Ctrl-C ends it; log: {log_path})", flush=True)
        for name, reason in _broken_locations(f"http://{HOST}:{port}/graphql"):
            output.note(f"code location {name} did not load: {reason}\nMend it, then press Reload in Deployment.")
        process.wait()
        raise _ended(process, log_path)
    finally:
        end_child(process, STOP_SECONDS)


def await_answer(url: str, process: "subprocess.Popen[bytes]", log_path: Path) -> None:
    """Wait for the first whole HTTP answer.

    Raises:
        ResourceError: the process ended first, or nothing answered in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _ended(process, log_path)
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  our own http URL
                return
        # HTTPException: until the server listens, a connection to a high port may meet itself and read its own request
        except (OSError, http.client.HTTPException):
            time.sleep(POLL_SECONDS)
    raise ResourceError(url, f"no answer in {START_SECONDS:.0f} s", f"Read {log_path}, then run `headwater doctor`.")


def _broken_locations(url: str) -> list[tuple[str, str]]:
    """Code locations that did not load, each with the last line of its error."""
    request = urllib.request.Request(  # noqa: S310  our own http URL
        url, json.dumps({"query": LOCATIONS}).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  same
        entries = json.load(answer)["data"]["workspaceOrError"].get("locationEntries", [])
    broken: list[tuple[str, str]] = []
    for entry in entries:
        error = entry["locationOrLoadError"]
        if error and error["__typename"] == "PythonError":
            messages = [error["message"], *(link["error"]["message"] for link in error["errorChain"])]
            broken.append((entry["name"], _last_line(messages[-1])))
    return broken


def _last_line(text: str) -> str:
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no message"])[-1][:300]


def _ended(process: "subprocess.Popen[bytes]", log_path: Path) -> ResourceError:
    last = _last_line(log_path.read_text(encoding="utf-8", errors="replace"))
    what = f"ended by itself with status {process.poll()}: {last}"
    return ResourceError("dagster dev", what, f"Read {log_path}, then run `headwater doctor`.")
