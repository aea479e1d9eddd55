"""From settings to a running, bootstrapped warehouse."""

from collections.abc import Mapping
from dataclasses import replace

from connectors.errors import ResourceError, TransientError
from platform_assets.settings import Settings
from platform_assets.warehouse.address import ADMIN, ROLES, Address, Login, Warehouse, parse_url, role_name
from platform_assets.warehouse.bootstrap import Plan, bootstrap, is_bootstrapped
from platform_assets.warehouse.layout import make_home
from platform_assets.warehouse.locks import home_lock
from platform_assets.warehouse.passwords import known_passwords, remembered
from platform_assets.warehouse.server import EmbeddedServer

DATABASE = "warehouse"
DAGSTER_DATABASE = "dagster"
ATTEMPTS = 3


def ensure(settings: Settings) -> Warehouse:
    """See `platform_assets.warehouse.ensure_warehouse`."""
    try:
        known = _known(settings)
        if known is not None and is_bootstrapped(known):
            return _warehouse(known, settings)
        make_home(settings.home)
        for attempt in range(1, ATTEMPTS + 1):
            with home_lock(settings.home):
                plan = _ready(settings)
            try:
                bootstrap(plan)
            except TransientError:
                # somebody stopped the server meanwhile; one that is not ours is not ours to start
                if not settings.is_embedded or attempt == ATTEMPTS:
                    raise
            else:
                return _warehouse(plan, settings)
    except OSError as error:
        raise ResourceError(
            str(error.filename or settings.home),
            f"the warehouse cannot use it: {error.strerror or error}",
            "Free the disk, or point HEADWATER_HOME at a folder that this user may write.",
        ) from error
    raise AssertionError("the last attempt returns or raises")


def _known(settings: Settings) -> Plan | None:
    """The plan from what the home remembers; starts and writes nothing."""
    passwords = known_passwords(settings.home, _generated(settings))
    if len(passwords) < len(_generated(settings)):
        return None
    if settings.warehouse_url:
        address, admin = parse_url(settings.warehouse_url)
        return _plan(settings, address, admin, passwords)
    server = EmbeddedServer(settings.home)
    known_address, known_admin = server.address(DATABASE), server.known_admin()
    if known_address is None or known_admin is None:
        return None
    return _plan(settings, known_address, known_admin, passwords)


def _ready(settings: Settings) -> Plan:
    """The plan, with the embedded server running and every password made. Call under the home's lock."""
    if settings.warehouse_url:
        address, admin = parse_url(settings.warehouse_url)
    else:
        address, admin = EmbeddedServer(settings.home).start()
        address = replace(address, database=DATABASE)
    return _plan(settings, address, admin, remembered(settings.home, _generated(settings)))


def _generated(settings: Settings) -> list[str]:
    """The roles whose password is ours to make."""
    return [role_name(role) for role in ROLES if role not in settings.passwords]


def _plan(settings: Settings, address: Address, admin: Login, passwords: Mapping[str, str]) -> Plan:
    logins: dict[str, Login] = {ADMIN: admin}
    for role in ROLES:
        logins[role] = Login(role_name(role), settings.passwords.get(role) or passwords[role_name(role)])
    return Plan(
        address=address,
        logins=logins,
        owns_server=settings.is_embedded,
        dagster_database=None if settings.dagster_url else DAGSTER_DATABASE,
        home=settings.home,
    )


def _warehouse(plan: Plan, settings: Settings) -> Warehouse:
    # SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3, which dagster-postgres does not speak
    if settings.dagster_url:
        dagster_url = settings.dagster_url.replace("postgresql://", "postgresql+psycopg2://", 1)
    else:
        place = replace(plan.address, database=DAGSTER_DATABASE)
        dagster_url = place.url(plan.logins[ADMIN], scheme="postgresql+psycopg2")
    return Warehouse(plan.address, plan.logins, dagster_url)
