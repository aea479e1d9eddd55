"""Sources of the tests: a script, the program that follows it, and the source file that runs the program."""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.contract import Message, ReadContext, StreamState
from connectors.registry import kind
from connectors.specs import SourceSpec, parse_source

PROGRAM = Path(__file__).parent / "source_program.py"


def stream(name: str, *modes: str, **more: Any) -> dict[str, Any]:
    """An entry of a catalog with the columns `id` and `v`."""
    return {
        "name": name,
        "json_schema": {"type": "object", "properties": {"id": {"type": "integer"}, "v": {"type": "string"}}},
        "supported_sync_modes": list(modes or ("full_refresh", "incremental")),
        "source_defined_cursor": True,
        **more,
    }


def record(name: str, number: int, **data: Any) -> dict[str, Any]:
    body = {"id": number, "v": f"{name}-{number}", **data}
    # a number with a fraction, as some sources write it
    return {"type": "RECORD", "record": {"stream": name, "data": body, "emitted_at": 1700000000000.5}}


def state(name: str, position: Any) -> dict[str, Any]:
    inner = {"stream_descriptor": {"name": name}, "stream_state": position}
    return {"type": "STATE", "state": {"type": "STREAM", "stream": inner, "sourceStats": {"recordCount": 1.0}}}


def shared_state(kind: str, position: Any) -> dict[str, Any]:
    key = "global" if kind == "GLOBAL" else "data"
    return {"type": "STATE", "state": {**({"type": kind} if kind == "GLOBAL" else {}), key: position}}


def status(name: str, word: str, *reasons: str) -> dict[str, Any]:
    told = {"stream_descriptor": {"name": name}, "status": word, "reasons": [{"type": reason} for reason in reasons]}
    return {"type": "TRACE", "trace": {"type": "STREAM_STATUS", "emitted_at": 1.5, "stream_status": told}}


def trouble(message: str, failure_type: str | None = "system_error", name: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"message": message, "stack_trace": "Traceback\n" * 50, "failure_type": failure_type}
    if name is not None:
        error["stream_descriptor"] = {"name": name}
    return {"type": "TRACE", "trace": {"type": "ERROR", "emitted_at": 1.0, "error": error}}


@dataclass(frozen=True, slots=True)
class Scripted:
    """A script in a folder of its own."""

    folder: Path

    @property
    def program(self) -> Path:
        return self.folder / "source-scripted"

    @property
    def script(self) -> Path:
        return self.folder / "script.json"

    @property
    def seen(self) -> list[Mapping[str, Any]]:
        """What each read was given: state, catalog, config."""
        file = self.folder / "script.json.seen"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def write(self, **script: Any) -> None:
        self.script.write_text(json.dumps(script))

    def spec(self, *streams: Mapping[str, Any], source: str = "unit", **connector: Any) -> SourceSpec:
        """The source file. Its stanza may be changed key by key; None takes a key away."""
        stanza: dict[str, Any] = {
            "kind": "airbyte",
            "executable": str(self.program),
            "config": {"script": str(self.script)},
            "env": {"SCRIPT": str(self.script)},
            **connector,
        }
        attributes = {
            "source": source,
            "owner": "team:test",
            "connector": {key: value for key, value in stanza.items() if value is not None},
            "streams": list(streams or [{"name": "things"}]),
        }
        return parse_source(attributes, "tests/airbyte.yaml")


def scripted(folder: Path, **script: Any) -> Scripted:
    made = Scripted(folder)
    made.program.write_text(f"#!{sys.executable} -IS\n{PROGRAM.read_text()}")
    made.program.chmod(0o755)
    made.write(**{"catalog": [stream("things")], "reads": [[]], **script})
    return made


def read(spec: SourceSpec, log: list[str] | None = None, state: StreamState | None = None) -> list[Message]:
    """The messages of the first stream, read alone."""
    lines = log if log is not None else []
    with tempfile.TemporaryDirectory() as folder, kind("airbyte").open(spec) as connector:
        context = ReadContext(None, Path(folder), log=lines.append)
        return list(connector.read(spec.streams[0], state or StreamState(), context))


__all__ = ["Scripted", "Sequence", "read", "record", "scripted", "shared_state", "state", "status", "stream", "trouble"]
