"""What the demo and its Dagster worker say to each other: one JSON line each, told apart by `type`."""

import msgspec


class Event(msgspec.Struct, frozen=True, tag_field="type"):
    pass


class Configure(Event, frozen=True, tag="configure"):
    """To the worker: the environment of every run. The first line it gets."""

    environment: dict[str, str]


class Planned(Event, frozen=True, tag="planned"):
    """A code location is loaded, and these assets will be materialized: names as `source.stream`, in asset order."""

    location: str
    names: tuple[str, ...]


class LocationFailed(Event, frozen=True, tag="location_failed"):
    """A code location did not load."""

    location: str
    message: str


class RunLaunched(Event, frozen=True, tag="run_launched"):
    location: str
    run_id: str
    names: tuple[str, ...]


class AssetChanged(Event, frozen=True, tag="asset"):
    """state: running, waiting (it will be retried), succeeded, failed, skipped.

    seconds: since the step started. table: `schema.table`, when the materialization names it.
    failure_class: as in connectors.errors, when the failure has one.
    """

    location: str
    name: str
    state: str
    run_id: str
    seconds: float = 0.0
    rows: int | None = None
    status: str = ""
    table: str = ""
    message: str = ""
    failure_class: str = ""


class CheckJudged(Event, frozen=True, tag="check"):
    """severity: warn or error."""

    name: str
    check: str
    passed: bool
    severity: str
    message: str = ""


class RunEnded(Event, frozen=True, tag="run_ended"):
    """message: why, when it did not succeed and no asset of it says so."""

    run_id: str
    succeeded: bool
    message: str = ""


Anything = Configure | Planned | LocationFailed | RunLaunched | AssetChanged | CheckJudged | RunEnded


def encode(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


_decoder: msgspec.json.Decoder[Anything] = msgspec.json.Decoder(Anything)


def decode(line: bytes) -> Anything:
    return _decoder.decode(line)
