"""Where the warehouse is and how each role gets in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import quote, urlencode

from connectors.errors import ConfigError

Role = Literal["loader", "transformer", "reader"]
ROLES: tuple[Role, ...] = get_args(Role)
ADMIN = "admin"


def role_name(role: Role) -> str:
    """The role's name in PostgreSQL."""
    return f"headwater_{role}"


@dataclass(frozen=True, slots=True)
class Login:
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """One database of one server.

    host: name or address for TCP.
    socket_dir: folder of the unix socket; None when the server is reached by TCP only.
    options: further libpq parameters, e.g. (("sslmode", "require"),).
    """

    host: str
    port: int
    database: str
    socket_dir: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    def url(self, login: Login, *, tcp: bool = False, scheme: str = "postgresql") -> str:
        """libpq URL; over the unix socket when there is one, unless `tcp`."""
        user = quote(login.user, safe="")
        credentials = f"{user}:{quote(login.password, safe='')}" if login.password else user
        options = dict(self.options)
        if self.socket_dir is not None and not tcp:
            place, options = "", {"host": self.socket_dir, "port": str(self.port)} | options
        else:
            place = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        query = f"?{urlencode(options, quote_via=quote, safe='/')}" if options else ""
        return f"{scheme}://{credentials}@{place}/{quote(self.database, safe='')}{query}"


def parse_url(url: str) -> tuple[Address, Login]:
    """Address and login of a libpq URL, with libpq's own defaults.

    Raises:
        ConfigError: libpq cannot read it, or it names several hosts.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        found = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
        port = int(found.pop("port", "5432"))
    except (psycopg.ProgrammingError, ValueError) as error:
        # libpq may echo the URL, and with it the password
        raise ConfigError(
            "HEADWATER_WAREHOUSE_URL",
            "is not one that libpq can read; a password with @ : / or % in it must be percent-encoded",
            "Write it as postgresql://user:password@host:5432/database, with one host.",
        ) from (None if isinstance(error, psycopg.ProgrammingError) else error)
    host = found.pop("host", "127.0.0.1")
    user = found.pop("user", "postgres")
    login = Login(user, found.pop("password", ""))
    database = found.pop("dbname", user)
    if host.startswith("/"):
        return Address("127.0.0.1", port, database, socket_dir=host, options=tuple(found.items())), login
    return Address(host, port, database, options=tuple(found.items())), login


@dataclass(frozen=True, slots=True)
class Warehouse:
    """A running, bootstrapped warehouse. The URLs hold passwords: never log them.

    dagster_url: SQLAlchemy URL (psycopg2) of Dagster's own storage.
    """

    address: Address
    logins: Mapping[str, Login]
    dagster_url: str = field(repr=False)

    @property
    def database(self) -> str:
        return self.address.database

    @property
    def admin_dsn(self) -> str:
        return self.address.url(self.logins[ADMIN])

    @property
    def loader_dsn(self) -> str:
        return self.address.url(self.logins["loader"])

    @property
    def transformer_dsn(self) -> str:
        return self.address.url(self.logins["transformer"])

    @property
    def reader_dsn(self) -> str:
        return self.address.url(self.logins["reader"])

    def tcp_dsn(self, role: Literal["admin", "loader", "transformer", "reader"]) -> str:
        """libpq URL over TCP, for tools that cannot use a unix socket."""
        return self.address.url(self.logins[role], tcp=True)
