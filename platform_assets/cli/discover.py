"""`headwater discover <source>`: what the source offers."""

import json
from collections.abc import Mapping, Sequence
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
    declared: dict[str, list[str]] = {}
    for stream in spec.streams:
        declared.setdefault(stream.offered_as, []).append(stream.name)
    table = output.table("", "offered", "declared", "columns", "primary key", "rows (about)", right=("rows (about)",))
    for stream in offered:
        words = [f"{column.name} {column.type}" for column in stream.columns]
        table.add_row(
            stream.name,
            _declared_as(stream, _readers(stream, declared)),
            "\n".join(words) if columns else str(len(words) or ""),
            ", ".join(stream.primary_key),
            "" if stream.estimated_rows is None else f"{stream.estimated_rows:,}",
        )
    output.console().print(table)
    read = {name for stream in offered for name in _readers(stream, declared)}
    unseen = [stream.name for stream in spec.streams if stream.name not in read]
    print(f"{output.count(len(offered), 'stream')} offered, {len(spec.streams)} declared in the source file")
    if unseen:
        print(f"Declared, but not seen by discovery: {', '.join(sorted(unseen))}.")


def _readers(offered: "DiscoveredStream", declared: Mapping[str, Sequence[str]]) -> list[str]:
    """The declared streams that read it. declared: their names by what they call it at the source."""
    found = [name for known in _known_names(offered.name) for name in declared.get(known, ())]
    return sorted({*found, *offered.read_by})


def _declared_as(offered: "DiscoveredStream", readers: Sequence[str]) -> str:
    if not readers:
        return "no"
    return "yes" if _known_names(offered.name) & set(readers) else f"in {', '.join(readers)}"


def _known_names(offered: str) -> set[str]:
    """What a file may call it: a database offers `public.orders`, its stream is usually `orders`."""
    return {offered, offered.rpartition(".")[2]}
