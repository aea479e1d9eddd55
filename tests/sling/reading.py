"""A source of kind sling, read the way the engine reads it, with no engine behind."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.csv as pa_csv

from connectors.contract import Attestation, CopyColumn, CopyFile, Message, ReadContext, StreamState, Window
from connectors.registry import kind
from connectors.specs import SourceSpec, parse_source

URL = "TEST_SLING_URL"
"""The environment variable that the tests' source refers to."""


def source(stream: Mapping[str, Any], connector: Mapping[str, Any] | None = None) -> SourceSpec:
    attributes = {
        "source": "shop",
        "owner": "team:data",
        "connector": {"kind": "sling", "connection": f"env:{URL}", **(connector or {})},
        "streams": [stream],
    }
    return parse_source(attributes, "defs.yaml")


@dataclass
class Reading:
    """What one read yielded."""

    messages: list[Message] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of all files, every value as the text that COPY gets."""
        return [row for part in self.of(CopyFile) for row in texts(part).to_pylist()]

    @property
    def columns(self) -> tuple[CopyColumn, ...]:
        return next(part.columns for part in self.of(CopyFile))

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def attested(self) -> Attestation:
        (found,) = self.of(Attestation)
        return found


def texts(part: CopyFile) -> pa.Table:
    return pa_csv.read_csv(
        part.path,
        read_options=pa_csv.ReadOptions(column_names=part.names),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in part.names},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )


@contextmanager
def reading(
    folder: Path, spec: SourceSpec, state: StreamState | None = None, window: Window | None = None, **context: Any
) -> Generator[tuple[Iterator[Message], ReadContext]]:
    """The messages of the first stream, and the context they are read in."""
    with kind("sling").open(spec) as connector:
        given = ReadContext(window=window, folder=folder, **context)
        yield connector.read(spec.streams[0], state or StreamState(), given), given


def read(folder: Path, spec: SourceSpec, state: StreamState | None = None, window: Window | None = None) -> Reading:
    found = Reading()
    with reading(folder, spec, state, window, log=found.log.append) as (messages, _):
        found.messages = list(messages)
    return found


def slings() -> list[psutil.Process]:
    """The Sling processes that this process started and that still run."""
    return [child for child in psutil.Process().children(recursive=True) if child.name().startswith("sling")]
