"""Where requests may go: the configured host, and others only by name and without credentials."""

from dataclasses import dataclass
from typing import Final

import httpx

from connectors.http.errors import Fault, FaultError

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Targets:
    """base: the configured address. allowed_hosts: `host` or `host:port`, named in the source file.

    query_name: the query parameter that carries a credential.
    """

    base: httpx.URL
    allowed_hosts: frozenset[str]
    query_name: str | None = None

    def resolve(self, url: str, relative_to: httpx.URL | None = None) -> httpx.URL:
        """An address that the source or its file named; a credential that a source echoes in it is taken out.

        Raises:
            FaultError: source, when it leads to a host that is not allowed.
        """
        try:
            target = (relative_to or self.base).join(url)
        except httpx.InvalidURL as error:
            fault = Fault("source", "the source named an invalid address", "Check pagination.")
            raise FaultError(fault) from error
        if self.query_name is not None and self.query_name in target.params:
            target = target.copy_remove_param(self.query_name)
        if target.host == self.base.host and (target.scheme, _port(target), self.base.scheme) == ("http", 80, "https"):
            # behind a TLS proxy many sources name themselves with http
            target = target.copy_with(scheme="https", port=self.base.port)
        if self.is_own(target):
            return target
        place = f"{target.host}:{target.port}" if target.port else target.host
        if target.scheme in _PORTS and {target.host, place} & self.allowed_hosts:
            return target
        hint = "If that is right, name it in connector.allowed_redirect_hosts; credentials are not sent there."
        own = self.base.netloc.decode()
        raise FaultError(Fault("source", f"the source leads away from {own} to {place}", hint))

    def is_own(self, target: httpx.URL) -> bool:
        """The configured host and port, or their step from http to https."""
        if target.host != self.base.host:
            return False
        own = (self.base.scheme, _port(self.base))
        return (target.scheme, _port(target)) in (own, ("https", 443) if own == ("http", 80) else own)


def _port(url: httpx.URL) -> int | None:
    return url.port or _PORTS.get(url.scheme)
