"""`headwater auth`: sign in to a source by a browser once; its tokens are kept encrypted and renewed by the syncs."""

import os
import sys
import time
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import parse_qsl, urlsplit

import typer

from connectors.errors import ConfigError, TransientError
from platform_assets.cli import output
from platform_assets.cli.context import protect_secrets, read_settings, running_warehouse, warehouse_session

if TYPE_CHECKING:
    from connectors.http.login import Login
    from connectors.http.source import HttpConnectorSpec
    from connectors.http.specs import AuthorizationCodeSpec

command = typer.Typer(no_args_is_help=True, help="Sign in to sources by a browser; list and forget what is kept.")

_PATH = "/callback"
_DONE = b"<!doctype html><title>headwater</title><p>Signed in. You may close this window."


@command.command("login")
def login(
    source: Annotated[str, typer.Argument(help="A source whose auth is oauth2_authorization_code.")],
    wait: Annotated[int, typer.Option("--wait", min=1, help="Seconds until the sign-in must be done.")] = 300,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser here.")] = True,
) -> None:
    """Sign in by a browser (authorization code with PKCE) and keep the tokens, encrypted, in the warehouse."""
    import psycopg

    from connectors.http.login import begin, finish
    from connectors.http.reader import tls_of
    from connectors.http.vault import TokenVault
    from platform_assets.sources import find_source

    settings = read_settings()
    spec = find_source(source, settings.project_root)
    protect_secrets(spec)
    where = f"{spec.source}: connector.auth"
    auth = getattr(spec.connector, "auth", None)
    if getattr(auth, "type", None) != "oauth2_authorization_code":
        what = f"is {getattr(auth, 'type', 'none')}, which nobody signs in for"
        raise ConfigError(where, what, "Use type: oauth2_authorization_code; see docs/rest.md.")
    found = cast("AuthorizationCodeSpec", auth)
    _ensure_key(settings.project_root / ".env")
    with running_warehouse(settings) as warehouse, _Callback(found.redirect_port or 0, where) as callback:
        attempt = begin(found, where, f"http://127.0.0.1:{callback.server_port}{_PATH}")
        output.protect((attempt.verifier,))
        print(f"Open this address and allow the access:\n{attempt.url}", flush=True)
        if browser and sys.stdout.isatty():
            webbrowser.open(attempt.url)
        code = callback.wait(attempt, wait)
        tls = tls_of(cast("HttpConnectorSpec", spec.connector), where)
        kept = finish(found, attempt, code, spec.source, where, tls)
        output.protect((kept.access_token, kept.refresh_token or ""))
        with TokenVault(lambda: psycopg.connect(warehouse.loader_dsn, autocommit=True)).locked(spec.source) as entry:
            entry.kept = kept
    print(f"signed in to {spec.source}; its syncs renew the tokens from now on")


@command.command("list")
def listed() -> None:
    """The sources whose tokens are kept. Nothing of a token is shown."""
    with warehouse_session() as session:
        rows = session.execute("select name, updated_at from ops.tokens where sealed <> '' order by name").fetchall()
    if not rows:
        print("no tokens are kept; `headwater auth login SOURCE` signs in")
        return
    table = output.table("", "source", "renewed (UTC)")
    for name, updated in rows:
        table.add_row(name, f"{updated:%Y-%m-%d %H:%M:%S}")
    output.console().print(table)


@command.command("logout")
def logout(source: Annotated[str, typer.Argument(help="A source whose tokens are kept.")]) -> None:
    """Forget the tokens of a source. The source itself is not told: withdraw the access there too."""
    with warehouse_session() as session:
        query = "delete from ops.tokens where name = %s and sealed <> '' returning name"
        if session.execute(query, [source]).fetchone() is None:
            raise ConfigError(source, "no tokens of it are kept", "See `headwater auth list`.")
    print(f"forgot the tokens of {source}")


def _ensure_key(dotenv: Path) -> None:
    """A key to encrypt with; a new one goes to .env, where this checkout's secrets live, for its owner's eyes alone."""
    from connectors.http.vault import KEY_VARIABLE, has_key, new_key

    if has_key():
        return
    key = new_key()
    text = dotenv.read_text(encoding="utf-8") if dotenv.exists() else ""
    number = os.open(dotenv, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(number, "a", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(("" if not text or text.endswith("\n") else "\n") + f"{KEY_VARIABLE}={key}\n")
    os.environ[KEY_VARIABLE] = key
    output.protect((key,))
    output.note(f"made {KEY_VARIABLE} and put it into .env; other hosts need the same")


class _Callback(HTTPServer):
    """The address on this machine that the browser comes back to; only the attempt's own state ends the wait."""

    def __init__(self, port: int, where: str) -> None:
        self._where = where
        self._queries: list[dict[str, str]] = []
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            what = f"port {port} of this machine is taken"
            raise ConfigError(f"{where}.redirect_port", what, "Free it, or leave redirect_port out.") from error

    def came(self, query: dict[str, str]) -> None:
        self._queries.append(query)

    def wait(self, attempt: "Login", seconds: int) -> str:
        """The code. Raises AuthError when it was refused, TransientError when nobody came."""
        from connectors.http.login import code_in

        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.timeout = left
            self.handle_request()
            while self._queries:
                code = code_in(attempt, self._queries.pop(0), self._where)
                if code is not None:
                    return code
                output.note("a request came that does not belong to this sign-in; it was ignored")
        raise TransientError(self._where, f"nobody signed in within {seconds} s", "Run the command again.")


class _Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        is_ours = parts.path == _PATH
        if is_ours:
            cast("_Callback", self.server).came(dict(parse_qsl(parts.query)))
        self.send_response(200 if is_ours else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        # the address has the code in it
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(_DONE if is_ours else b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's signature
        """Nothing: the address has the code in it."""
