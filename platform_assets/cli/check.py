"""`headwater check <source>`: does the source answer."""

import typer

from platform_assets.cli.context import opened, read_settings


def command(
    source: str = typer.Argument(help="A source, e.g. nyc_flights."),
) -> None:
    """Ask a source whether its address and credentials work: one cheap request, nothing is read or loaded."""
    from platform_assets.sources import find_source

    settings = read_settings()
    spec = find_source(source, settings.project_root)
    with opened(spec, settings) as connector:
        print(f"{spec.source}: {connector.check()}")
