"""`headwater preview <source>.<stream>`: the first rows as the source gives them."""

import csv
import json
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from connectors.contract import CopyFile, Frame, JsonRecords, Message, ReadContext, Rejected, StreamState
from connectors.errors import ConfigError
from platform_assets.cli import output
from platform_assets.cli.context import opened, read_settings

if TYPE_CHECKING:
    from connectors.specs import StreamSpec

MAX_CELL = 60
"""Characters of one value that a table shows; --json shows all of them."""
MAX_ACROSS = 8
"""Columns that stand side by side, where the terminal has room for their names; a wider record is shown lengthwise."""
GAP = 3
"""Characters between two columns."""
_NARROWEST = 24
"""Characters that a row has at least, lengthwise; the rows that find no room follow below."""


def command(
    stream: str = typer.Argument(help="A stream as source.stream, e.g. nyc_flights.flights."),
    rows: int = typer.Option(10, "--rows", min=1, max=10_000, help="How many, of the first page."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a line, values uncut."),
) -> None:
    """Show the first rows of a stream as the source gives them. Nothing is loaded, no state is read or moved."""
    from platform_assets.sources import find_streams, split_target

    settings = read_settings()
    if split_target(stream)[1] is None:
        raise ConfigError(stream, "names a source, not a stream", f"Write {stream}.<stream>; see `headwater sources`.")
    spec, (found,) = find_streams(stream, settings.project_root)
    with opened(spec, settings) as connector, tempfile.TemporaryDirectory(prefix="headwater-preview-") as folder:
        context = ReadContext(window=None, folder=Path(folder), page_limit=1, log=output.note)
        # islice ends the read early; close lets the connector end its requests and processes in order
        with closing(_generator(connector.read(found, StreamState(), context))) as messages:
            seen = list(islice(_rows(protected(messages, found)), rows))
    if as_json:
        for row in seen:
            print(json.dumps(row, default=str, ensure_ascii=False))
        return
    _show(seen)
    print(f"{output.count(len(seen), 'row')} of {spec.source}.{found.name}; nothing was loaded")


def _generator(messages: Iterable[Message]) -> Generator[Message]:
    yield from messages


def protected(messages: Iterable[Message], stream: "StreamSpec") -> Iterator[Message]:
    """The messages with the stream's column rules applied: what the warehouse never sees is not shown either."""
    from connectors.sync.extract import frames_of
    from connectors.sync.protect import Protector

    protector = Protector(stream.columns, stream.name, stream.null_values)
    for message in messages:
        if protector and isinstance(message, CopyFile) and protector.touches(message.names):
            yield from map(protector.frame, frames_of(message))
        else:
            yield protector.message(message) if protector else message


def _rows(messages: Iterable[Message]) -> Iterator[Mapping[str, Any]]:
    for message in messages:
        match message:
            case JsonRecords():
                yield from _objects(message.body.decode("utf-8", "replace"))
            case Frame():
                for batch in message.table.to_batches(max_chunksize=1000):
                    yield from batch.to_pylist()
            case CopyFile():
                with message.path.open(encoding="utf-8", newline="") as file:
                    for values in csv.reader(file):
                        yield dict(zip(message.names, values, strict=True))
            case Rejected():
                output.note(f"{message.position}: one record would be quarantined: {message.reason}")
            case _:
                continue


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a text, whatever white space stands between and in them."""
    decoder = json.JSONDecoder(parse_float=Decimal)
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        found, at = decoder.raw_decode(text, at)
        yield found


def _show(rows: list[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row, name) for name in names] for row in rows]
    console = output.console(is_data=True)
    # a name is never broken: one that is too long for its column could not be copied into a source file
    if len(names) <= MAX_ACROSS and sum(len(name) + GAP for name in names) <= console.width:
        table = output.table("")
        for name in names:
            table.add_column(name, overflow="fold", min_width=len(name))
        for row in cells:
            table.add_row(*row)
        console.print(table)
        return
    longest = max((len(name) for name in names), default=0)
    room = max(1, (console.width - longest) // (_NARROWEST + GAP))
    for first in range(0, len(rows), room):
        shown = range(first, min(first + room, len(rows)))
        table = output.table("")
        table.add_column("column", no_wrap=True)
        for number in shown:
            table.add_column(f"row {number + 1}", overflow="fold")
        for index, name in enumerate(names):
            table.add_row(name, *(cells[number][index] for number in shown))
        console.print(table)


def _cell(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return ""
    value = row[name]
    text = "null" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"
