"""What Sling is asked for: the replication document of one read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from connectors.contract import ReadContext, StreamState
from connectors.sling import query
from connectors.sling.process import CONNECTION
from connectors.texts import TextType

if TYPE_CHECKING:
    from connectors.kinds.sling import SlingStreamSpec

_PIPE = "file:///dev/fd/1"
"""The child's stdout as a file that cannot be deleted or replaced."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a stream before its read. table: schema and name as the source spells them, if it is a table."""

    types: Mapping[str, TextType]
    table: tuple[str, ...] | None = None


def bounds_of(stream: "SlingStreamSpec", state: StreamState, context: ReadContext) -> query.Bounds | None:
    """What to ask for; None without a cursor."""
    if stream.cursor is None:
        return None
    if (window := context.window) is not None:
        return query.Bounds(stream.cursor.field, _utc(window.start), _utc(window.end))
    return query.Bounds(stream.cursor.field, state.cursor or stream.cursor.start, None)


def _utc(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def replication(
    stream: "SlingStreamSpec",
    shape: Shape,
    bounds: query.Bounds | None,
    dialect: str,
    folder: str,
    limit: int | None = None,
) -> dict[str, Any]:
    """The replication document: one stream, to our pipe, every known column but binary as text.

    bounds: the position, None for a sample. folder: of a local file source. limit: rows of a sample.
    """
    told: dict[str, Any] = {
        "mode": "full-refresh",
        "object": _PIPE,
        "target_options": {"format": "arrow"},
        "columns": {name: "string" for name, kind in shape.types.items() if kind.name not in _as_they_are(stream)},
        "source_options": {**stream.source_options, **({} if limit is None else {"limit": limit})},
    }
    wanted = shape.types.get(bounds.field) if bounds else None
    position = query.condition(bounds, wanted, dialect) if bounds else "1=1"
    order = ""
    if stream.order and stream.cursor is not None and bounds is not None:
        order = f" order by {query.place(stream.cursor.field, wanted, dialect)}"
    chosen = _chosen(stream, shape)
    if stream.sql is not None:
        sql = stream.sql.strip().rstrip(";").strip()
        if query.PLACEHOLDER in sql:
            told["sql"] = sql.replace(query.PLACEHOLDER, f"({position})") + order
        else:
            told["sql"] = f"select * from ({sql}) query where {position}{order}" if bounds else sql
    elif order:
        names = ", ".join(query.identifier(name, dialect) for name in chosen) or "*"
        table = ".".join(query.identifier(part, dialect) for part in shape.table or stream.object_name.split("."))
        asked = f"({stream.where}) and ({position})" if stream.where else position
        told["sql"] = f"select {names} from {table} where {asked}{order}"
    else:
        asked = [f"({text})" for text in (stream.where, position if bounds else None) if text]
        told |= {"where": " and ".join(asked)} if asked else {}
        told |= {"select": chosen} if chosen else {}
    told |= {"transforms": stream.transforms} if stream.transforms else {}
    return {"source": CONNECTION, "target": "LOCAL", "streams": {_object(stream, dialect, folder): told}}


def _as_they_are(stream: "SlingStreamSpec") -> frozenset[str]:
    """Types that are not asked for as text; a `datetime_format` is Sling's to read."""
    return frozenset({"binary", "timestamp", "date"} if "datetime_format" in stream.source_options else {"binary"})


def _chosen(stream: "SlingStreamSpec", shape: Shape) -> list[str]:
    """The columns to ask for; empty is all. `-name` leaves one out, and a blocked one never leaves the source."""
    wanted = [name for name in stream.select if not name.startswith("-")]
    hidden = stream.blocked | {name[1:] for name in stream.select if name.startswith("-")}
    if not hidden:
        return wanted
    known = wanted or list(shape.types)
    # where the columns are not known yet, Sling leaves out those with a minus
    return [name for name in known if name not in hidden] or [f"-{name}" for name in sorted(hidden)]


def _object(stream: "SlingStreamSpec", dialect: str, folder: str) -> str:
    """The stream's name in the replication; of a file source the whole address, as Sling wants it."""
    if stream.sql is not None:
        return stream.name
    name = stream.object_name
    if dialect == "file" and "://" not in name:
        return f"file://{name if name.startswith('/') else f'{folder}/{name}'}"
    return name
