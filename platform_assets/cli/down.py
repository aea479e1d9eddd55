"""`headwater down`: stop what outlives commands."""

from platform_assets.cli.context import read_settings


def command() -> None:
    """Stop the embedded PostgreSQL server; nothing committed is lost, and it starts again when it is needed."""
    from platform_assets.warehouse import stop_warehouse

    settings = read_settings()
    if not settings.is_embedded:
        print("the warehouse is an external server (HEADWATER_WAREHOUSE_URL): it is left alone")
    elif stop_warehouse(settings):
        print(f"the warehouse in {settings.home} is stopped")
    else:
        print(f"no warehouse ran in {settings.home}")
