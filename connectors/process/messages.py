"""What a process says, whatever its protocol: a dialect turns each line into these.

`stream` is always the source's own name of the stream, as the catalog has it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from connectors.errors import HeadwaterError

if TYPE_CHECKING:
    from connectors.specs import ColumnType


class Record(msgspec.Struct, frozen=True):
    """One record. body: its raw JSON object, without a newline."""

    stream: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Types:
    """The column types that the source declares now; what the stream's contract or table says already wins."""

    stream: str
    types: "Mapping[str, ColumnType]"


@dataclass(frozen=True, slots=True)
class State:
    """A position. It covers all that the stream sent before; stream None: all that every stream sent before.

    data: for a stream the connector state to save and to hand to `Dialect.prepare` again; for all streams the same,
        kept once for the source.
    is_resumable: False when a rerun would start before these records (Singer's progress markers): nothing is sealed.
    """

    stream: str | None
    data: Mapping[str, Any]
    is_resumable: bool = True


@dataclass(frozen=True, slots=True)
class Afterwards:
    """What else the source wants back, without which it only reads more: kept once all streams have succeeded."""

    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Complete:
    """The stream has sent all; what it sent may be committed even if it never sent a state of its own."""

    stream: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The source reports an error: of one stream, whose siblings go on, or of the whole run."""

    error: HeadwaterError
    stream: str | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """A record that cannot be represented; it goes to quarantine."""

    stream: str
    payload: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Files of records, one JSON object a line. shape: makes of a line what its Record would have been."""

    stream: str
    paths: Sequence[Path]
    is_gzip: bool
    shape: Callable[[bytes], bytes] = bytes


@dataclass(frozen=True, slots=True)
class Replaces:
    """Once the run ended in order, rows of the table whose `column` is not `value` are gone at the source."""

    stream: str
    column: str
    value: int


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the sync's log."""

    text: str


Message = Record | Types | State | Afterwards | Complete | Failed | Broken | Batch | Replaces | Note
