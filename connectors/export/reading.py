"""One stream read for somebody else: lines of records, and the states that cover them."""

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from connectors.contract import Checkpoint, Connector, ReadContext
from connectors.errors import ContractError
from connectors.export.position import Position
from connectors.export.rows import Rows
from connectors.specs import StreamSpec

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Reading:
    """connector: open. log: one line for whoever watches. keep: of a stream's properties, those that are selected."""

    connector: Connector
    source: str
    log: Callable[[str], None] = lambda line: None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def lines(
        self, stream: StreamSpec, saved: Mapping[str, Any], keep: frozenset[str] | None = None
    ) -> Iterator[bytes | Mapping[str, Any]]:
        """Records as lines of JSON; a mapping is the state that covers all lines before it. The last item is one.

        A replicated table is read whole: its log and its slot are for our own syncs alone.

        Raises:
            ContractError: records could not be passed on; no state covers them. Else what reading raises.
        """
        where = f"{self.source}.{stream.name}"
        if hasattr(stream, "replication"):
            stream = stream.model_copy(update={"replication": None})
        position = Position(stream, saved, where)
        rows = Rows(stream, where, keep)
        has_cursor = stream.cursor is not None
        with tempfile.TemporaryDirectory(prefix="headwater-export-") as folder:
            context = ReadContext(window=None, folder=Path(folder), log=self.log, cancelled=self.cancelled)
            with closing(cast("Any", self.connector.read(stream, position.for_read(), context))) as messages:
                for message in messages:
                    if isinstance(message, Checkpoint):
                        if not rows.rejected:
                            yield position.seal(message)
                        continue
                    for line in rows.of(message):
                        if has_cursor:
                            position.saw(rows.last)
                        yield line
        if rows.rejected:
            told = "; ".join(rows.rejected[:_SHOWN])
            what = f"{len(rows.rejected):,} records could not be passed on: {told}"
            raise ContractError(where, what[:600], "Mend them at the source; no state was given behind them.")
        yield position.seal(Checkpoint())
