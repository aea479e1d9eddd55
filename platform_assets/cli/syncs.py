"""`headwater syncs`: what the ledger says of recent syncs, and everything about one."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connectors.errors import ConfigError
from platform_assets.cli import output
from platform_assets.cli.context import refuse_unknown, warehouse_session

if TYPE_CHECKING:
    from connectors.sync.past import PastSync

SHOW = "show"
SHORT_ID = 8
FATES = ("loaded", "deduplicated", "filtered", "quarantined")
"""What becomes of a row: their sum is what was extracted."""


def command(
    target: Annotated[
        str | None, typer.Argument(help="SOURCE, SOURCE.STREAM, or the word `show`.", metavar="[SOURCE[.STREAM]|show]")
    ] = None,
    sync_id: Annotated[str | None, typer.Argument(help="After `show`: a sync's id, or its beginning.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for programs.")] = False,
) -> None:
    """List recent syncs, newest first; `headwater syncs show ID` tells everything about one."""
    from connectors.sync import past

    if target == SHOW:
        if sync_id is None:
            raise ConfigError("syncs show", "needs the id of a sync", "`headwater syncs` lists the recent ones.")
        with warehouse_session() as connection:
            _show(past.one(connection, sync_id), as_json=as_json)
        return
    if sync_id is not None:
        raise ConfigError("syncs", f"does not know {target!r} with an id", "Write `headwater syncs show ID`.")
    source, _, stream = (target or "").partition(".")
    with warehouse_session() as connection:
        found = past.recent(connection, source or None, stream or None, limit=limit)
    if not found:
        refuse_unknown(target)
    if as_json:
        print(json.dumps([_as_json(sync) for sync in found], indent=2, default=str))
    elif found:
        _list(found)
    else:
        print("no sync is on record")


def _list(found: "list[PastSync]") -> None:
    numbers = ("extracted", *FATES, "seconds")
    table = output.table("", "id", "stream", "status", "started (UTC)", *numbers, "message", right=numbers)
    for sync in found:
        counts = (f"{getattr(sync, f'rows_{name}'):,}" for name in ("extracted", *FATES))
        table.add_row(
            sync.sync_id[:SHORT_ID], sync.label, _status(sync), _time(sync.started_at), *counts,
            f"{sync.seconds:.1f}", (sync.message or "").partition("\n")[0],
        )  # fmt: skip
    output.console(is_data=True).print(table)


def _show(sync: "PastSync", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_as_json(sync), indent=2, default=str))
        return
    facts: dict[str, object] = {
        "sync": sync.sync_id,
        "stream": f"{sync.label} ({sync.kind})",
        "status": _status(sync) if sync.finished_at else f"running, in step {sync.step}",
        "message": sync.message,
        "trigger": sync.trigger,
        "run": sync.run_id,
        "partition": sync.window_start
        and sync.window_end
        and f"{_time(sync.window_start)} to {_time(sync.window_end)}",
        "time (UTC)": f"{_time(sync.started_at)} to {_time(sync.finished_at or sync.heartbeat_at)}",
        "rows": _rows(sync),
        "windows": sync.windows,
        "seconds": f"{sync.seconds:.2f}: " + ", ".join(f"{step} {spent:.2f}" for step, spent in _steps(sync)),
        "bytes": f"{sync.received_bytes:,} received, {sync.loaded_bytes:,} loaded",
        "requests": f"{sync.requests:,}, {sync.wait_seconds:.1f} s waited for rate limits",
        "peak memory": f"{sync.peak_memory_bytes / 2**20:.0f} MB",
        "newest cursor": sync.newest_cursor,
        "state before": _state(sync.state_before),
        "state after": _state(sync.state_after),
        "schema version": sync.schema_version,
        "loads": ", ".join(sync.load_ids),
    }
    for verdict in sync.verdicts:
        colour = "passed" if verdict["passed"] else f"failed ({verdict['severity']})"
        facts[f"check {verdict['name']}"] = f"{colour}: {verdict['explanation']}"
    width = max(map(len, facts))
    for name, value in facts.items():
        if value not in (None, ""):
            print(f"{name:<{width}}  " + str(value).replace("\n", f"\n{' ' * width}  "))


def _rows(sync: "PastSync") -> str:
    fates = ", ".join(f"{getattr(sync, f'rows_{name}'):,} {name}" for name in FATES)
    return f"{sync.rows_extracted:,} extracted = {fates}; {sync.rows_updated:,} updated, {sync.rows_deleted:,} deleted"


def _steps(sync: "PastSync") -> list[tuple[str, float]]:
    order = ("start", "extract", "land", "audit", "publish", "finalize")
    return [(step, sync.step_seconds[step]) for step in order if step in sync.step_seconds]


def _status(sync: "PastSync") -> str:
    return f"{sync.status} ({sync.failure_class})" if sync.failure_class else str(sync.status)


def _state(state: Mapping[str, Any] | None) -> str | None:
    return json.dumps(state) if state else None


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _as_json(sync: "PastSync") -> dict[str, object]:
    return {**asdict(sync), "seconds": round(sync.seconds, 3)}
