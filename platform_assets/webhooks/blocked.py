"""What no stream may keep of a body: it is dropped before the body is stored.

A stream's column is blocked by its source file (`rule: block`) or by an operator (`headwater schema block`). One
delivery may go to several streams, so a field is dropped where every stream that reads its event blocks it. A stream
of shape `envelope` reads the whole body as one column: only where that is blocked may anything go.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from connectors.column_spec import ColumnSpec
from connectors.contract import JsonRecords
from connectors.kinds.webhook import PAYLOAD
from connectors.specs import SourceSpec
from connectors.webhook.connector import means
from connectors.webhook.records import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from connectors.kinds.webhook import WebhookStreamSpec

Keep = Callable[[bytes], bytes]
"""A body to what is stored of it."""

READ = """
    select rule_id, source, stream, column_name from ops.column_rules
    where source = any(%t::text[]) and lifted_at is null
"""
VERSION = """
    select coalesce(string_agg(rule_id::text, ',' order by rule_id), '') from ops.column_rules
    where source = any(%t::text[]) and lifted_at is null
"""
"""Of the rules in force; a rule is never changed, only lifted."""
_EVENTS = 256
"""Event types that are remembered: senders name them."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one stream reads. blocked: fields at the top of the body; None: all of them."""

    events: tuple[str, ...]
    blocked: frozenset[str] | None

    @property
    def blocks(self) -> bool:
        return self.blocked is None or bool(self.blocked)


class Blocks:
    """The blocked fields of these sources, all of kind webhook; true when there are any.

    version: of the operators' rules that were taken last.
    """

    def __init__(self, sources: Iterable[SourceSpec] = ()) -> None:
        self._sources = {source.source: source for source in sources}
        self.names = list(self._sources)
        self.version = ""
        self._use(())

    def take(self, rules: Iterable[tuple[int, str, str, str]]) -> bool:
        """rules: the rows of `READ`, all that operators block now; whether they are others than before."""
        found = sorted(rules)
        version = ",".join(str(rule) for rule, *_ in found)
        if version == self.version:
            return False
        self.version = version
        self._use([(source, stream, column) for _, source, stream, column in found])
        return True

    def _use(self, ruled: Iterable[tuple[str, str, str]]) -> None:
        """ruled: (source, stream, column) beside what the source files block."""
        columns: dict[tuple[str, str], set[str]] = {}
        for source, stream, column in ruled:
            columns.setdefault((source, stream), set()).add(column)
        readings = {name: _readings(source, columns) for name, source in self._sources.items()}
        self._readings = {name: found for name, found in readings.items() if any(one.blocks for one in found)}
        self._keep = lru_cache(_EVENTS)(self._keeping)

    def __bool__(self) -> bool:
        return bool(self._readings)

    def kept(self, source: str, event_type: str, body: bytes) -> bytes:
        """The body itself, or one without its blocked fields. One that cannot be read is withheld as a whole."""
        if source not in self._readings:
            return body
        keep = self._keep(source, event_type)
        return keep(body) if keep else body

    def _keeping(self, source: str, event_type: str) -> Keep | None:
        """None: all of it. Nothing is known of an event that no stream reads."""
        blocked = [
            item.blocked for item in self._readings[source] if any(means(event, event_type) for event in item.events)
        ]
        some = [fields for fields in blocked if fields is not None]
        if not some:
            return _emptied if blocked else None
        fields = frozenset[str].intersection(*some)
        return _without(fields, source) if fields else None


def read_blocks(session: "psycopg.Connection[Any]", source: SourceSpec) -> Blocks:
    """What is blocked of the source now."""
    blocks = Blocks([source])
    blocks.take(session.execute(READ.encode(), [blocks.names]).fetchall())
    return blocks


def _readings(source: SourceSpec, ruled: Mapping[tuple[str, str], set[str]]) -> tuple[_Reading, ...]:
    return tuple(
        _Reading(stream.events, _blocked(stream, ruled.get((source.source, stream.name), set())))
        for stream in cast("Sequence[WebhookStreamSpec]", source.streams)
    )


def _blocked(stream: "WebhookStreamSpec", ruled: set[str]) -> frozenset[str] | None:
    columns: Mapping[str, ColumnSpec] = stream.columns
    names = ruled | {name for name, column in columns.items() if column.rule == "block"}
    if stream.shape == "envelope":
        return None if PAYLOAD.keys() <= names else frozenset()
    return frozenset(names)


def _emptied(body: bytes) -> bytes:
    return b"{}"


def _without(fields: frozenset[str], where: str) -> Keep:
    from connectors.sync.protect import Protector  # a receiver without blocks does not need it

    protector = Protector(dict.fromkeys(fields, ColumnSpec(rule="block")), where, is_sealing=True)

    def keep(body: bytes) -> bytes:
        line = one_line(body)
        kept = protector.json(JsonRecords(line, "")).body
        return body if kept == line else kept

    return keep
