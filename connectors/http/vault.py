"""Tokens that processes and hosts share: rows of `ops.tokens`, encrypted, each locked while it is renewed.

The key is HEADWATER_SECRET_KEY: one Fernet key, or several with commas between them while keys are changed; the first
encrypts, all decrypt. AES-128 in CBC mode with HMAC-SHA256, by the library cryptography.
"""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from connectors.errors import ConfigError, LoaderError

if TYPE_CHECKING:
    import psycopg
    from cryptography.fernet import MultiFernet

KEY_VARIABLE: Final = "HEADWATER_SECRET_KEY"
_LOCK_SECONDS: Final = 90
Connect = Callable[[], "psycopg.Connection[Any]"]


class Kept(msgspec.Struct, frozen=True):
    """Tokens, by the name of their row. renew_at: seconds since 1970."""

    name: str
    access_token: str
    renew_at: float
    refresh_token: str | None = None


def has_key() -> bool:
    return bool(os.environ.get(KEY_VARIABLE))


def new_key() -> str:
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def _cipher() -> "MultiFernet":
    from cryptography.fernet import Fernet, MultiFernet

    keys = [key.strip() for key in os.environ.get(KEY_VARIABLE, "").split(",") if key.strip()]
    hint = "`headwater auth login` makes one; every host needs the same."
    if not keys:
        raise ConfigError(KEY_VARIABLE, "is not set, and tokens are never kept in clear", hint)
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        # the error's own text may quote the key
        raise ConfigError(KEY_VARIABLE, "is no Fernet key", hint) from None


@dataclass(slots=True)
class Entry:
    """One source's tokens while its row is locked. Set `kept` to change them."""

    kept: Kept | None


class TokenVault:
    """connect: a new session, autocommit, of a role that may write `ops.tokens`."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    @contextmanager
    def locked(self, name: str) -> Generator[Entry]:
        """The tokens of a source; nobody else sees or renews them meanwhile. What was set is durable at the end.

        Raises:
            ConfigError: no key, or another one than they were encrypted with. LoaderError: no answer of the warehouse.
        """
        import psycopg

        cipher = _cipher()
        try:
            with self._connect() as session, session.transaction():
                session.execute("select set_config('lock_timeout', %s, true)", [f"{_LOCK_SECONDS}s"])
                session.execute("insert into ops.tokens (name, sealed) values (%s, '') on conflict do nothing", [name])
                row = session.execute("select sealed from ops.tokens where name = %s for update", [name]).fetchone()
                before = _open(cipher, name, bytes(row[0])) if row and row[0] else None
                entry = Entry(before)
                yield entry
                if entry.kept is not None and entry.kept != before:
                    sealed = cipher.encrypt(msgspec.json.encode(entry.kept))
                    query = "update ops.tokens set sealed = %s, updated_at = clock_timestamp() where name = %s"
                    session.execute(query, [sealed, name])
        except psycopg.Error as error:
            what = f"the warehouse does not answer: {str(error).strip().splitlines()[0]}"
            raise LoaderError(f"tokens of {name}", what, "Run `headwater doctor`.") from error


def _open(cipher: "MultiFernet", name: str, sealed: bytes) -> Kept:
    from cryptography.fernet import InvalidToken

    try:
        kept = msgspec.json.decode(cipher.decrypt(sealed), type=Kept)
    except (InvalidToken, msgspec.DecodeError):
        kept = None
    # a row that was copied to another name is refused like one of another key
    if kept is None or kept.name != name:
        what = "the tokens were kept with another key"
        raise ConfigError(f"tokens of {name}", what, f"Set {KEY_VARIABLE} as it was, or run `headwater auth login`.")
    return kept
