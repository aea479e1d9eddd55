"""`headwater sources`: what is declared."""

import json

import typer

from platform_assets.cli import output
from platform_assets.cli.context import read_settings


def command(
    as_json: bool = typer.Option(False, "--json", help="One JSON array, for programs."),
) -> None:
    """List the sources and their streams, as the source files declare them. Reads no secret and no network."""
    from platform_assets.sources import load_sources

    specs = load_sources(read_settings().project_root)
    rows = [
        {
            "source": spec.source,
            "kind": spec.connector.kind,
            "stream": stream.name,
            "write": stream.write or "",
            "primary_key": list(stream.primary_key),
            "cursor": stream.cursor.field if stream.cursor else "",
            "schedule": stream.schedule or "",
            "owner": stream.owner or spec.owner,
        }
        for spec in specs
        for stream in spec.streams
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = output.table("", "stream", "kind", "write", "primary key", "cursor", "schedule", "owner")
    for row in rows:
        table.add_row(
            f"{row['source']}.{row['stream']}",
            str(row["kind"]),
            str(row["write"]),
            ", ".join(row["primary_key"]),
            str(row["cursor"]),
            str(row["schedule"]),
            str(row["owner"]),
        )
    output.console().print(table)
    print(f"{output.count(len(rows), 'stream')} of {output.count(len(specs), 'source')}")
