"""Singer sources over the scripted tap of tests/support/tap.py, in one warehouse, each of a name of its own."""

import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.sql import SQL, Identifier

from connectors.contract import DiscoveredStream
from connectors.registry import kind
from connectors.specs import SourceSpec, parse_source
from connectors.sync import Progress, SyncRequest, SyncResult
from connectors.sync.together import sync_together

_fork = multiprocessing.get_context("fork")
Json = dict[str, Any]


def schema(stream: str, **properties: Any) -> Json:
    return {"type": "SCHEMA", "stream": stream, "schema": {"properties": properties}, "key_properties": ["n"]}


def record(stream: str, version: int | None = None, /, **values: Any) -> Json:
    message: Json = {"type": "RECORD", "stream": stream, "record": values}
    return message if version is None else message | {"version": version}


def state(**bookmarks: Any) -> Json:
    return {"type": "STATE", "value": {"bookmarks": bookmarks}}


def executable(folder: Path) -> str:
    """The scripted tap as a program."""
    path = folder / "tap"
    if not path.exists():
        source = (Path(__file__).parent / "tap.py").read_text(encoding="utf-8")
        path.write_text(f"#!{sys.executable} -S\n{source}", encoding="utf-8")
        path.chmod(0o755)
    return str(path)


@dataclass(slots=True)
class Tap:
    """One source. streams: their settings by name, in order. calls: what the tap was given, one entry a run of it.

    cancel_at: a run is cancelled as soon as its log says so.
    """

    dsn: str
    admin_dsn: str
    folder: Path
    streams: Mapping[str, Json]
    connector: Json = field(default_factory=dict[str, Any])
    name: str = field(default_factory=lambda: f"tap_{uuid4().hex[:10]}")
    lines: list[str] = field(default_factory=list[str])
    cancel_at: str = ""

    def spec(self, config: Json) -> SourceSpec:
        streams = [{"name": name, "write": "append", **settings} for name, settings in self.streams.items()]
        ids = [settings.get("stream", name) for name, settings in self.streams.items()]
        connector = {
            "kind": "singer",
            "executable": executable(self.folder),
            **self.connector,
            "config": {"log": str(self.folder / "calls.jsonl"), "streams": ids, **config},
        }
        return parse_source(
            {"source": self.name, "owner": "team:test", "connector": connector, "streams": streams}, "tests/tap.yaml"
        )

    def sync(self, config: Json, *only: str) -> dict[str, SyncResult | Exception]:
        """One run of the tap, for all streams or some."""
        spec = self.spec(config)
        requests = [SyncRequest(spec, stream, "cli") for stream in spec.streams if not only or stream.name in only]
        cancelled = threading.Event()

        def on_log(line: str) -> None:
            self.lines.append(line)
            if self.cancel_at and self.cancel_at in line:
                cancelled.set()

        progresses = {request.stream.name: Progress(on_log=on_log, cancelled=cancelled) for request in requests}
        return dict(sync_together(requests, self.dsn, progresses, on_log))

    def say(self, *messages: Any, **config: Any) -> dict[str, SyncResult | Exception]:
        return self.sync({"say": list(messages), **config})

    def killed(self, config: Json) -> None:
        """A sync in a process of its own, which the tap kills: its pid takes the place of `loader`."""

        def run() -> None:
            self.sync({**config, "loader": os.getpid()})
            os._exit(0)

        child = _fork.Process(target=run, daemon=True)
        child.start()
        child.join(60)
        assert child.exitcode == -9, "the loader was not killed"

    def discover(self, config: Json) -> Sequence[DiscoveredStream]:
        spec = self.spec(config)
        return kind("singer").open(spec).discover()

    def rows(self, stream: str, columns: str = "n", where: str = "true") -> list[tuple[Any, ...]]:
        table = SQL("{}").format(Identifier(f"raw_{self.name}", stream))
        with psycopg.connect(self.admin_dsn) as session:
            text = f"select {columns} from {table.as_string(session)} where {where} order by 1"
            return session.execute(text.encode()).fetchall()

    def query(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.admin_dsn) as session:
            return session.execute(text.encode(), parameters).fetchall()

    def execute(self, text: str, *parameters: Any) -> None:
        with psycopg.connect(self.admin_dsn) as session:
            session.execute(text.encode(), parameters)

    def position(self, stream: str) -> Any:
        """The connector's part of the stream's newest state; None without one."""
        found = self.query(
            "select state -> 'connector' from ops.stream_state where source = %s and stream = %s "
            "order by version desc limit 1",
            self.name,
            stream,
        )
        return found[0][0] if found else None

    @property
    def calls(self) -> list[Json]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def result(outcome: SyncResult | Exception) -> SyncResult:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
