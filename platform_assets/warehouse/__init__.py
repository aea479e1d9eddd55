"""The warehouse: an embedded PostgreSQL 18, or any PostgreSQL 14+ that HEADWATER_WAREHOUSE_URL names.

`ensure_warehouse(settings)` starts and bootstraps what is missing; every process may call it at any time.
"""

from platform_assets.settings import Settings
from platform_assets.warehouse.address import Role, Warehouse

__all__ = ["Role", "Warehouse", "ensure_warehouse", "is_running", "stop_warehouse"]


def ensure_warehouse(settings: Settings) -> Warehouse:
    """The running, bootstrapped warehouse; quick when it is already both.

    Race-free between processes: a file lock guards the start, an advisory lock the bootstrap.

    Raises:
        ConfigError: a setting, a server version or a privilege does not do.
        AuthError: the server refused the password.
        ResourceError: no disk, no memory, or the server did not start in time.
        TransientError: an external server does not answer.
    """
    from platform_assets.warehouse.ensure import ensure  # drivers load with the first use, not with definitions

    return ensure(settings)


def stop_warehouse(settings: Settings) -> bool:
    """Stop the embedded server in order; False when none ran. An external server is left alone."""
    from platform_assets.warehouse.server import EmbeddedServer

    return settings.is_embedded and EmbeddedServer(settings.home).stop()


def is_running(settings: Settings) -> bool:
    """Whether the embedded server of this home runs; True for an external one, which is not ours to run."""
    from platform_assets.warehouse.server import EmbeddedServer

    return not settings.is_embedded or EmbeddedServer(settings.home).is_running()
