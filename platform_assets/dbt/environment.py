"""The environment that dbt_project/profiles.yml reads."""

from collections.abc import Mapping

from platform_assets.warehouse import Warehouse


def dbt_environment(warehouse: Warehouse) -> Mapping[str, str]:
    """Variables that let dbt in as the transformer role; the password is among them."""
    address, login = warehouse.address, warehouse.logins["transformer"]
    return {
        "HEADWATER_DBT_HOST": address.socket_dir or address.host,
        "HEADWATER_DBT_PORT": str(address.port),
        "HEADWATER_DBT_DATABASE": address.database,
        "HEADWATER_DBT_USER": login.user,
        "HEADWATER_DBT_PASSWORD": login.password,
        "HEADWATER_DBT_SSLMODE": dict(address.options).get("sslmode", "prefer"),
    }
