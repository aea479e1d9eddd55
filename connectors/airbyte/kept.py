"""The configuration as the source itself has changed it, a refresh token that was used up above all: kept encrypted.

It is in `ops.tokens`, beside the tokens of HTTP sources and under the same key (connectors.http.vault).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from connectors.http.vault import Connect

Json = Mapping[str, Any]


class KeptConfig:
    """given: what the source file says now. What was kept of another one counts no more: its author has changed it."""

    def __init__(self, source: str, given: Json, connect: "Connect") -> None:
        self._name = f"{source}: connector.config"
        self._given = given
        self._connect = connect

    @property
    def _digest(self) -> str:
        return hashlib.sha256(json.dumps(self._given, sort_keys=True, default=str).encode()).hexdigest()

    def newest(self) -> Json | None:
        """Raises ConfigError: kept with another key. LoaderError: no answer of the warehouse."""
        from connectors.http.vault import TokenVault

        with TokenVault(self._connect).locked(self._name) as entry:
            kept = entry.kept
        found = cast("Json", json.loads(kept.access_token)) if kept is not None else {}
        return found["config"] if found.get("given") == self._digest else None

    def keep(self, config: Json) -> None:
        """Raises as `newest`."""
        from connectors.http.vault import Kept, TokenVault

        # a whole configuration stands in the place of a token
        text = json.dumps({"given": self._digest, "config": config})
        with TokenVault(self._connect).locked(self._name) as entry:
            entry.kept = Kept(self._name, text, renew_at=0)


def texts_in(value: object) -> list[str]:
    """Every text of a configuration, at any depth."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in cast("Json", value).values() for text in texts_in(item)]
    if isinstance(value, list):
        return [text for item in cast("list[object]", value) for text in texts_in(item)]
    return []
