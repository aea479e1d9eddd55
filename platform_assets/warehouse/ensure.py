"""From settings to a running, bootstrapped warehouse."""

import logging
from dataclasses import replace

from platform_assets.settings import Settings
from platform_assets.warehouse.address import ADMIN, ROLES, Address, Login, Warehouse, parse_url, role_name
from platform_assets.warehouse.bootstrap import Plan, bootstrap, is_bootstrapped
from platform_assets.warehouse.locks import home_lock
from platform_assets.warehouse.passwords import remembered
from platform_assets.warehouse.server import EmbeddedServer

log = logging.getLogger(__name__)

DATABASE = "warehouse"
DAGSTER_DATABASE = "dagster"


def ensure(settings: Settings) -> Warehouse:
    """See `platform_assets.warehouse.ensure_warehouse`."""
    known = _known(settings)
    if known is not None and is_bootstrapped(known):
        return _warehouse(known, settings)
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with home_lock(settings.home):
        plan = _external(settings) if settings.warehouse_url else _started(settings)
    bootstrap(plan)
    return _warehouse(plan, settings)


def _known(settings: Settings) -> Plan | None:
    """What the home remembers, without starting or writing anything."""
    if settings.warehouse_url:
        return _external(settings) if (settings.home / "secrets.json").exists() else None
    server = EmbeddedServer(settings.home)
    address, admin = server.address(DATABASE), server.known_admin()
    if address is None or admin is None:
        return None
    return _plan(settings, address, admin)


def _started(settings: Settings) -> Plan:
    server = EmbeddedServer(settings.home)
    address = server.start()
    return _plan(settings, replace(address, database=DATABASE), server.admin())


def _external(settings: Settings) -> Plan:
    address, admin = parse_url(settings.warehouse_url or "")
    return _plan(settings, address, admin)


def _plan(settings: Settings, address: Address, admin: Login) -> Plan:
    generated = [role_name(role) for role in ROLES if role not in settings.passwords]
    found = remembered(settings.home, generated) if generated else {}
    logins: dict[str, Login] = {ADMIN: admin}
    for role in ROLES:
        logins[role] = Login(role_name(role), settings.passwords.get(role) or found[role_name(role)])
    return Plan(
        address=address,
        logins=logins,
        owns_server=settings.is_embedded,
        dagster_database=None if settings.dagster_url else DAGSTER_DATABASE,
        home=settings.home,
    )


def _warehouse(plan: Plan, settings: Settings) -> Warehouse:
    if settings.dagster_url:
        dagster_url = settings.dagster_url.replace("postgresql://", "postgresql+psycopg2://", 1)
    else:
        # SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3, which dagster-postgres does not speak
        place = replace(plan.address, database=DAGSTER_DATABASE)
        dagster_url = place.url(plan.logins[ADMIN], scheme="postgresql+psycopg2")
    return Warehouse(plan.address, plan.logins, dagster_url)
