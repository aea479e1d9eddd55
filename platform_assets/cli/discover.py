"""`headwater discover <source>`: what the source offers."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from platform_assets.cli import output
from platform_assets.cli.context import opened, read_settings

if TYPE_CHECKING:
    from connectors.contract import DiscoveredStream


def command(
    source: str = typer.Argument(help="A source, e.g. nyc_reference."),
    columns: bool = typer.Option(False, "--columns", help="Also list every column with its type."),
    as_json: bool = typer.Option(False, "--json", help="One JSON array, for programs."),
) -> None:
    """List the streams that a source offers, and which of them its file declares."""
    from platform_assets.sources import find_source

    settings = read_settings()
    spec = find_source(source, settings.project_root)
    with opened(spec, settings) as connector:
        offered = connector.discover()
    if as_json:
        print(json.dumps([asdict(stream) for stream in offered], indent=2))
        return
    declared = {stream.name for stream in spec.streams}
    table = output.table("", "offered", "declared", "columns", "primary key", "rows (about)", right=("rows (about)",))
    for stream in offered:
        words = [f"{column.name} {column.type}" for column in stream.columns]
        table.add_row(
            stream.name,
            _declared_as(stream, declared),
            "\n".join(words) if columns else str(len(words) or ""),
            ", ".join(stream.primary_key),
            "" if stream.estimated_rows is None else f"{stream.estimated_rows:,}",
        )
    output.console().print(table)
    unseen = declared.difference(*({*_known_names(stream.name), *stream.read_by} for stream in offered))
    print(f"{output.count(len(offered), 'stream')} offered, {len(declared)} declared in the source file")
    if unseen:
        print(f"Declared, but not seen by discovery: {', '.join(sorted(unseen))}.")


def _declared_as(stream: "DiscoveredStream", declared: set[str]) -> str:
    if _known_names(stream.name) & declared:
        return "yes"
    return f"in {', '.join(stream.read_by)}" if stream.read_by else "no"


def _known_names(offered: str) -> set[str]:
    """What a file may call it: a database offers `public.orders`, its stream is usually `orders`."""
    return {offered, offered.rpartition(".")[2]}
