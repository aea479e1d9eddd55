"""Nested records without end from a program of each protocol and from a dlt source. The standard library alone.

`python -S emitting.py <singer|airbyte> <rows> <the protocol's own words>` speaks the protocol on standard output, with
a state after every 10,000 records.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

STREAM = "narrow"
STATE_ROWS, PAGE_ROWS = 10_000, 1_000
REST: dict[str, Any] = {
    "name": "user",
    "address": {"street": "Main 1", "city": "Oslo", "geo": {"lat": 1.5, "lng": 2.25}},
    "tags": ["a", "b", "c"],
    "company": {"name": "C", "words": ["x y z", "long words of a company"]},
    "created_at": "2024-01-01T00:00:00Z",
}
SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}}}


def executable(folder: Path, protocol: str, rows: int) -> str:
    """A program in the folder that speaks the protocol."""
    path = folder / f"emit-{protocol}"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" {protocol} {rows} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def records(rows: int) -> Any:
    """A dlt resource of the same records, as pages of dicts."""
    import dlt

    def pages() -> Iterator[list[dict[str, Any]]]:
        for first in range(1, rows + 1, PAGE_ROWS):
            yield [{"id": number, **REST} for number in range(first, min(first + PAGE_ROWS, rows + 1))]

    return dlt.resource(pages, name=STREAM)


def singer(rows: int, words: Sequence[str]) -> None:
    if "--discover" in words:
        print(json.dumps({"streams": [{"tap_stream_id": STREAM, "stream": STREAM, "schema": SCHEMA}]}))
        return
    print(json.dumps({"type": "SCHEMA", "stream": STREAM, "schema": SCHEMA, "key_properties": ["id"]}))
    _emit(
        rows, f'{{"type": "RECORD", "stream": "{STREAM}", "record": %s}}\n',
        lambda number: {"type": "STATE", "value": {"bookmarks": {STREAM: {"at": number}}}},
    )  # fmt: skip


def airbyte(rows: int, words: Sequence[str]) -> None:
    stream = {"name": STREAM, "json_schema": SCHEMA, "supported_sync_modes": ["full_refresh", "incremental"],
              "source_defined_cursor": True}  # fmt: skip
    if words[0] == "spec":
        print(json.dumps({"type": "SPEC", "spec": {"connectionSpecification": {"type": "object"}}}))
    elif words[0] == "discover":
        print(json.dumps({"type": "CATALOG", "catalog": {"streams": [stream]}}))
    else:
        descriptor = {"name": STREAM}
        _emit(
            rows, f'{{"type": "RECORD", "record": {{"stream": "{STREAM}", "emitted_at": 1, "data": %s}}}}\n',
            lambda number: {
                "type": "STATE",
                "state": {
                    "type": "STREAM", "stream": {"stream_descriptor": descriptor, "stream_state": {"at": number}},
                },
            },
        )  # fmt: skip


def _emit(rows: int, envelope: str, state: Callable[[int], object]) -> None:
    record = json.dumps({"id": 0, **REST}).replace('"id": 0', '"id": %d', 1)
    line, write = envelope.replace("%s", record), sys.stdout.write
    for number in range(1, rows + 1):
        write(line % number)
        if number % STATE_ROWS == 0 or number == rows:
            write(json.dumps(state(number)) + "\n")


if __name__ == "__main__":
    {"singer": singer, "airbyte": airbyte}[sys.argv[1]](int(sys.argv[2]), sys.argv[3:])
