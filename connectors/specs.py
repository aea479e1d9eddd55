"""The source file as pydantic models: the same for the component, the command line and the docs.

A source file is data: frozen, extra keys refused, secrets only as references, durations in ISO 8601.
Each kind adds its own connector and stream fields (`connectors.kinds.*`); `parse_source` picks them.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from connectors.column_spec import ColumnSpec, DriftSpec, Spec, did_you_mean
from connectors.column_spec import ColumnType as ColumnType
from connectors.contradictions import refuse_contradictions
from connectors.errors import ConfigError
from connectors.registry import KINDS, kind
from connectors.spec_errors import telling, wrong_file

NAME = r"^[a-z][a-z0-9_]{0,50}$"
Name = Annotated[str, Field(pattern=NAME)]
Write = Literal["append", "merge", "replace", "scd2"]
Severity = Literal["warn", "error"]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple, json_schema_input_type=str | tuple[str, ...])]
"""One name or a list of names."""


def _owner(value: str) -> str:
    if not re.fullmatch(r"team:[\w.-]+|[^@\s]+@[^@\s]+", value):
        raise ValueError("is no owner: write team:<name> or an e-mail address")
    return value


def _cron(value: str) -> str:
    """The shape alone; Dagster judges the numbers."""
    if not re.fullmatch(
        r"@(hourly|daily|midnight|weekly|monthly|yearly|annually)|[\w*/,#?-]+(\s+[\w*/,#?-]+){4}", value
    ):
        raise ValueError("is no schedule: write @hourly, @daily or the five fields of cron, in quotes")
    return value


Owner = Annotated[str, AfterValidator(_owner)]
Cron = Annotated[str, AfterValidator(_cron)]


class ConnectorSpec(Spec):
    """How to reach a source; each kind adds its own fields."""

    kind: str

    @property
    def reads_together(self) -> bool:
        """All streams come out of one read: one op with a subset; see `connectors.contract.ReadsTogether`."""
        return kind(self.kind).reads_together


class CursorSpec(Spec):
    """The ordering field of an incremental stream.

    lag: subtracted from the committed position, so late rows are read again and merged by key.
    start: first position when there is no state.
    tolerance: a value later than now + tolerance is loaded but never becomes the position.
    """

    field: str
    lag: timedelta = Field(default=timedelta(0), ge=timedelta(0))
    start: str | None = None
    tolerance: timedelta = Field(default=timedelta(days=1), ge=timedelta(0))


class FreshnessSpec(Spec):
    """Warn and fail when the stream has not been synced for so long (smallest: one minute)."""

    fail_after: timedelta
    warn_after: timedelta | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.fail_after < timedelta(minutes=1):
            raise ValueError("fail_after must be at least PT1M")
        if self.warn_after is not None and not timedelta(minutes=1) <= self.warn_after < self.fail_after:
            raise ValueError("warn_after must be at least PT1M and shorter than fail_after")
        return self


class PartitionSpec(Spec):
    """Slices of time that backfills read one by one; `by` follows the calendar of `timezone`.

    per_run: a backfill's run reads at most so many of them, each as a sync of its own.
    """

    by: Literal["hour", "day", "week", "month"]
    start: date
    timezone: str = "UTC"
    per_run: int = Field(default=30, ge=1)

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            hint = did_you_mean(value, sorted(available_timezones()))
            raise ValueError(
                f"is no time zone: {value}. {hint if len(hint) < 100 else 'Write e.g. Europe/Berlin'}"
            ) from None
        return value


class CorrectionsSpec(Spec):
    """Another stream of this source whose rows say which moments changed: `field` of a row is such a moment."""

    stream: Name
    field: str


class WebhookGapsSpec(Spec):
    """No delivery of `source` for so long means that some were missed."""

    source: Name
    longer_than: timedelta = Field(gt=timedelta(0))


class BackfillSpec(Spec):
    """What may launch backfills of this stream by itself, and how many windows a day; nothing without `reasons`.

    cool_down: one reason launches one backfill of a stream in that time.
    """

    reasons: tuple[
        Literal["missing", "late", "failed_checks", "new_columns", "contract", "new_files", "webhook_gaps"], ...
    ] = ()
    daily_windows: int = Field(default=31, ge=1)
    cool_down: timedelta = Field(default=timedelta(hours=6), ge=timedelta(0))
    corrections: CorrectionsSpec | None = None
    webhook_gaps: WebhookGapsSpec | None = None


class CheckSpec(Spec):
    """One check on a stream. The fields beside `type`, `severity` and `blocking` belong to the check's own type."""

    model_config = ConfigDict(frozen=True, extra="allow")
    type: str
    severity: Severity | None = None
    blocking: bool | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        return self.model_extra or {}


class WindowSpec(Spec):
    """A long read commits at a checkpoint once so many rows or so much time have gathered."""

    rows: int = Field(default=50_000, ge=1)
    seconds: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(0))


class QuarantineSpec(Spec):
    """The sync goes on while no more than `rows` records and `share` of all records are quarantined."""

    rows: int = Field(default=1_000, ge=0)
    share: float = Field(default=0.05, ge=0.0, le=1.0)


class LimitSpec(Spec):
    """Ends only this stream, with class `resource`."""

    memory_mb: int | None = None
    time: timedelta | None = Field(default=None, gt=timedelta(0))

    @field_validator("memory_mb")
    @classmethod
    def _leaves_room(cls, value: int | None) -> int | None:
        if value is not None and value < 256:
            raise ValueError("at least 256: a process of its own needs about 180 MB before it reads a record")
        return value


class Policy(Spec):
    """Fields that a source may set for all its streams (`defaults`) and a stream for itself."""

    schedule: Cron | None = None
    freshness: FreshnessSpec | None = None
    write: Write | None = None
    drift: DriftSpec = DriftSpec()
    window: WindowSpec = WindowSpec()
    max_quarantined: QuarantineSpec = QuarantineSpec()
    limits: LimitSpec = LimitSpec()
    owner: Owner | None = None
    tags: Mapping[str, str] = Field(default_factory=dict)
    retries: int = Field(default=2, ge=0, le=10)
    priority: int = 0
    """Runs with a greater one leave the queue first; backfills have -10."""


class StreamSpec(Policy):
    """One stream: about ten facts. Each kind adds its own fields."""

    hard_deletes: ClassVar[tuple[Write, ...]] = ("merge",)
    """What `write` may be for `deletes: hard` to have an effect."""

    name: Name
    description: str = ""
    primary_key: Names = ()
    cursor: CursorSpec | None = None
    partitions: PartitionSpec | None = None
    backfill: BackfillSpec = BackfillSpec()
    columns: Mapping[str, ColumnSpec] = Field(default_factory=dict)
    checks: tuple[CheckSpec, ...] = ()
    merge: Literal["upsert", "delete-insert"] = "upsert"
    deletes: Literal["soft", "hard"] = "soft"
    snapshot: bool = False
    """Every read is the whole collection, so a key that is gone was deleted at the source."""
    allow_empty: bool = False
    """A `replace` that reads nothing may empty the table."""
    null_values: tuple[str, ...] = ()
    """Texts that mean NULL, e.g. `NA`."""
    max_record_bytes: int = Field(default=16 * 2**20, ge=1024)
    """A larger record is quarantined unread."""

    @property
    def offered_as(self) -> str:
        """What the source itself calls it, as `headwater discover` lists it."""
        return self.name

    @property
    def has_column_rules(self) -> bool:
        """Some column is not kept as the source has it: its plain values must not reach a file."""
        return any(column.rule != "keep" for column in self.columns.values())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse_contradictions(self)
        return self


class SourceSpec(Spec):
    """One source file: the connector, the streams, the policy.

    Schema in the warehouse `raw_<source>`, asset keys [source, stream], group <source>.
    """

    source: Name
    owner: Owner
    description: str = ""
    connector: ConnectorSpec
    defaults: Policy = Policy()
    streams: tuple[StreamSpec, ...]

    @model_validator(mode="after")
    def _limits_its_own_memory(self) -> Self:
        limited = [stream.name for stream in self.streams if stream.limits.memory_mb is not None]
        if limited and self.connector.reads_together:
            raise ValueError(
                f"{limited[0]} has limits.memory_mb, but is read in one process with its siblings, "
                "who would end with it: take it out; the memory of a program is connector.memory_mb"
            )
        return self

    @property
    def schema_name(self) -> str:
        return f"raw_{self.source}"

    def stream(self, name: str) -> StreamSpec:
        """Raises ConfigError with the nearest name when there is no such stream."""
        for stream in self.streams:
            if stream.name == name:
                return stream
        raise ConfigError(
            self.source, f"no stream {name!r}", did_you_mean(name, [stream.name for stream in self.streams])
        )


def parse_source(attributes: object, path: Path | str, folder: Path | None = None) -> SourceSpec:
    """The validated source file; a stream inherits from `defaults` what it does not set itself.

    folder: of the file; relative paths in a connector stanza that lie beside it are made absolute with it.

    Raises:
        ConfigError: path, stream, key, what is wrong, and the nearest valid key.
    """
    place = str(path)
    if not isinstance(attributes, Mapping):
        raise ConfigError(place, f"attributes is a {type(attributes).__name__}, not a mapping", "See docs/sources.md.")
    raw = cast("Mapping[str, Any]", attributes)
    connector = raw.get("connector")
    name = cast("Mapping[str, Any]", connector).get("kind") if isinstance(connector, Mapping) else None
    if not isinstance(name, str):
        raise ConfigError(f"{place}: connector.kind", "missing", f"Set one of: {', '.join(sorted(KINDS))}.")
    if name not in KINDS:
        raise ConfigError(f"{place}: connector.kind", f"unknown kind {name!r}", did_you_mean(name, list(KINDS)))
    entry = kind(name)
    shape: dict[str, type[BaseModel]] = {"connector": entry.connector, "streams": entry.stream, "defaults": Policy}
    try:
        defaults = Policy.model_validate(raw.get("defaults") or {})
        inherited = {key: getattr(defaults, key) for key in defaults.model_fields_set}
        streams = raw.get("streams")
        if not isinstance(streams, Sequence) or isinstance(streams, str) or not streams:
            raise ConfigError(f"{place}: streams", "needs at least one stream", "See docs/sources.md.")
        parsed: list[StreamSpec] = []
        for index, stream in enumerate(cast("Sequence[object]", streams)):
            item = cast("Mapping[str, Any]", stream) if isinstance(stream, Mapping) else {}
            try:
                parsed.append(entry.stream.model_validate({"write": entry.default_write, **inherited, **item}))
            except ValidationError as error:
                label = f"streams[{item.get('name', index)}]"
                raise wrong_file(place, label, telling(error), entry.stream) from error
        names = [stream.name for stream in parsed]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"{place}: streams", f"declared twice: {', '.join(sorted(twice))}", "Rename one.")
        outer = {key: value for key, value in raw.items() if key not in ("connector", "streams", "defaults")}
        try:
            stanza = entry.connector.model_validate(connector, context={"folder": folder})
        except ValidationError as error:
            raise wrong_file(place, "connector", telling(error), entry.connector) from error
        return SourceSpec.model_validate({**outer, "connector": stanza, "defaults": defaults, "streams": parsed})
    except ValidationError as error:
        first = telling(error)
        label = "defaults" if error.title == "Policy" else ""
        raise wrong_file(place, label, first, shape.get(label, SourceSpec)) from error
