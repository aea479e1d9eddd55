"""A connector of one's own, as kind `python` reads it: nested records without end."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.emitting import REST
from connectors.custom import RowsConnector, Stream


class Records(RowsConnector):
    """options.rows: so many."""

    def rows(self, stream: Stream, since: str | None, until: str | None) -> Iterator[Mapping[str, Any]]:
        for number in range(1, int(self.options["rows"]) + 1):
            yield {"id": number, **REST}
